"""Which files of a hub's dataset make up a split of a subset, as the datasets library reads a repository."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from finetune_operator.api.dataset import Dataset
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_trainer.prepare.card_check import foreign_files, leads_out
from finetune_trainer.prepare.readers import holds_rows
from finetune_trainer.prepare.remote import downloads
from finetune_trainer.prepare.remote.snapshot import Snapshot, Source

if TYPE_CHECKING:
    import datasets

CARD = "README.md"
ROOT = "finetune-dataset"
_READERS = frozenset({"arrow", "csv", "json", "parquet"})
"""The library's readers of rows; others unpack archives, decode pictures, or run what a notebook or database holds."""
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")
_ABOUT_FILES = frozenset({"name", "version", "data_dir", "data_files", "description"})
"""Fields of a builder's configuration that say which files there are; the others say how they are read."""


@dataclass(frozen=True, slots=True)
class Split:
    """A split. Its files are read one after the other, unless the library has to read them."""

    files: tuple[str, ...]
    needs_library: bool
    """The repository's card sets reading options, or the split is a slice such as train[:10%]."""


def whole_repository(source: Source) -> Snapshot:
    """Every file of the dataset's repository: the splits are told by the names of all of them."""
    return downloads.resolve(source, lambda path: True)


def split_of(source: Source, dataset: Dataset, repository: Snapshot) -> Split:
    """The files of the dataset's subset and split. Raises StageFailure where there is no such subset or split."""
    builder = _builder(source, dataset, repository)
    found = {str(split): [_inside(path) for path in paths] for split, paths in builder.config.data_files.items()}
    slices = dataset.split.split("[")[0].split("+")[0]
    if slices not in found:
        raise _refusal(source, f"it has no split {dataset.split!r}, only {', '.join(sorted(found))}")
    exact = found.get(dataset.split)
    readable = exact is not None and all(holds_rows(path) for path in exact) and not _has_options(builder.config)
    every = [path for paths in found.values() for path in paths]
    return Split(tuple(dict.fromkeys(exact if exact is not None and readable else every)), not readable)


def library_rows(source: Source, dataset: Dataset, folder: Path) -> Iterator[Any]:
    """The rows as the datasets library reads them from a downloaded repository. Raises StageFailure."""
    import datasets

    cache = downloads.own_store(source.run) / "datasets"
    try:
        yield from datasets.load_dataset(str(folder), name=dataset.subset, split=dataset.split, cache_dir=str(cache))
    except (ValueError, datasets.exceptions.DatasetsError) as error:
        raise _refusal(source, str(error)) from error


def _builder(source: Source, dataset: Dataset, repository: Snapshot) -> datasets.DatasetBuilder:
    import datasets

    # The library tells splits by names and by the card alone, so that empty files will do.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / ROOT
        for file in repository.files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        card = repository.only(lambda path: path == CARD)
        if card.files:
            text = (downloads.provide(source, card) / CARD).read_bytes()
            for name in foreign_files(text):
                raise _refusal(source, f"its card names {name!r}, expected files of the repository")
            (folder / CARD).write_bytes(text)
        try:
            builder = datasets.load_dataset_builder(str(folder), name=dataset.subset, cache_dir=str(folder / ".cache"))
        # RuntimeError: a script of the repository, which the library does not run any more.
        except (ValueError, RuntimeError, OSError, BadZipFile, datasets.exceptions.DatasetsError) as error:
            raise _refusal(source, str(error).replace(str(folder), source.uri)) from error
        _refuse_foreign(source, builder, folder)
    return builder


def _refuse_foreign(source: Source, builder: datasets.DatasetBuilder, folder: Path) -> None:
    """Raise StageFailure where the library would read other files than the repository's, unpack them, or decode more than rows."""
    if builder.name not in _READERS:
        raise _refusal(source, f"its files are of kind {builder.name}, expected {', '.join(sorted(_READERS))}")
    for path in (path for paths in builder.config.data_files.values() for path in paths):
        if leads_out(path.removeprefix(f"{folder}/")):
            raise _refusal(source, f"its card names {path!r}, expected files of the repository")
        if path.lower().endswith(_ARCHIVES):
            raise _refusal(source, f"{_inside(path)} is an archive, which is never unpacked, expected files with rows")


def _inside(path: str) -> str:
    return path.partition(f"/{ROOT}/")[2]


def _has_options(config: Any) -> bool:
    plain = type(config)()
    names = {field.name for field in dataclasses.fields(config)} - _ABOUT_FILES
    return any(getattr(config, name) != getattr(plain, name) for name in names)


def _refusal(source: Source, cause: str) -> StageFailure:
    field = source.field
    return StageFailure(
        ExitCode.SOURCE_UNREACHABLE,
        f"{field}.source: {source.uri}: {(cause.strip().splitlines() or ['cannot be read'])[0]}. Correct {field}.subset or "
        f"{field}.split, or name one file ({source.parsed.scheme.value}://{source.parsed.owner}/FILE).",
    )
