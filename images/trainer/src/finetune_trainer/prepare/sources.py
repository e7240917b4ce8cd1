"""Where the rows of a dataset lie: in files of a mounted volume, or of a hub or object store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune_operator.api.dataset import Dataset
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_operator.api.source import Scheme, parse_source
from finetune_trainer.prepare import splits
from finetune_trainer.prepare.readable import refuse_unreadable
from finetune_trainer.prepare.readers import SUFFIXES, Place, Row, fill_placeholders, holds_rows, read_rows
from finetune_trainer.prepare.remote import downloads
from finetune_trainer.prepare.remote.snapshot import Snapshot, Source

_FLAGS = {Scheme.CLAIM: "--claim NAME=DIR", Scheme.CONFIG_MAP: "--config-map NAME=DIR"}


@dataclass(frozen=True, slots=True)
class NamedDataset:
    """A dataset and the field of the spec that names it."""

    field: str
    dataset: Dataset


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file with rows, on this machine."""

    path: Path
    shown_as: str
    """Its name in messages and in the tokens' places: the source's URI with what lies below it."""


def local_files(run: RunConfig, named: NamedDataset) -> list[Path]:
    """Files of a dataset on a mounted volume; empty for one that is downloaded.

    Raises StageFailure where there is no file to read.
    """
    source = named.dataset.source
    path = local_path(run, source, named.field)
    if path is None:
        return []
    if path.is_file():
        return [path]
    found = (
        sorted(file for file in path.rglob("*") if file.is_file() and holds_rows(file.name)) if path.is_dir() else []
    )
    if not found:
        what = f"holds no {', '.join(SUFFIXES)} file" if path.is_dir() else "does not exist"
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"{named.field}.source: {source} ({path}) {what}; check the path inside the volume.",
        )
    return found


def local_path(run: RunConfig, source: str, field: str) -> Path | None:
    """Where a source is mounted; None for one that is downloaded.

    Raises StageFailure where its volume is not mounted, or holds what may not be read.
    """
    try:
        path = run.local_path(source)
        if path is not None:
            refuse_unreadable(path, f"{field}.source: {source}")
        stray = run.stray(source)
    except KeyError as error:
        flag = _FLAGS.get(parse_source(source).scheme)
        locally = (
            f"`finetune run` takes {flag} for it"
            if flag
            else "`finetune run` cannot mount it: unpack it and write file:///PATH"
        )
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE, f"{field}.source: {source}: {error} is not mounted; {locally}."
        ) from error
    if stray is not None:
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"{field}.source: {source}: {stray} is a link that leads out of the volume, expected files of it; "
            "copy the file itself.",
        )
    return path


def remote_source(run: RunConfig, named: NamedDataset) -> Source | None:
    """The dataset as something to download; None where it is mounted."""
    dataset = named.dataset
    if local_path(run, dataset.source, named.field) is not None:
        return None
    return Source(run, named.field, dataset.source, "dataset", dataset.revision, dataset.token_secret)


def remote_revision(run: RunConfig, named: NamedDataset) -> str | None:
    """The revision that this run holds on to; None for a mounted dataset. Raises StageFailure where there is none."""
    source = remote_source(run, named)
    return None if source is None else _snapshot(source).revision


def data_files(run: RunConfig, named: NamedDataset) -> list[DataFile] | None:
    """The files of a dataset in the order of their rows, downloaded if need be; None where only the library can read them.

    Raises StageFailure where there are none.
    """
    source = remote_source(run, named)
    if source is not None:
        snapshot = _files_to_read(source, named.dataset)
        return None if snapshot is None else _downloaded(source, snapshot)
    root = local_path(run, named.dataset.source, named.field)
    shown = named.dataset.source.removeprefix("file://")
    return [
        DataFile(path, shown if path == root or root is None else f"{shown}/{path.relative_to(root)}")
        for path in local_files(run, named)
    ]


def dataset_files(run: RunConfig, named: NamedDataset) -> list[Path]:
    """Like ``data_files``, the paths alone; empty where only the library can read them."""
    return [file.path for file in data_files(run, named) or []]


def rows_of(run: RunConfig, named: NamedDataset) -> Iterator[Row]:
    """The dataset's rows in order, placeholders filled in, cut at maxSamples."""
    limit = named.dataset.max_samples
    placeholders = named.dataset.placeholders or {}
    for count, row in enumerate(_all_rows(run, named)):
        if count == limit:
            return
        yield Row(row.place, fill_placeholders(row.value, placeholders), row.problem)


def _all_rows(run: RunConfig, named: NamedDataset) -> Iterator[Row]:
    files = data_files(run, named)
    if files is None:
        yield from _library_rows(run, named)
        return
    for file in files:
        yield from read_rows(file.path, file.shown_as)


def _library_rows(run: RunConfig, named: NamedDataset) -> Iterator[Row]:
    source = remote_source(run, named)
    if source is None:
        return
    repository = _snapshot(source)
    split = splits.split_of(source, named.dataset, repository)
    folder = downloads.provide(source, repository.only(lambda path: path in {*split.files, splits.CARD}))
    for number, value in enumerate(splits.library_rows(source, named.dataset, folder)):
        yield Row(Place(source.uri, number, is_line=False), value)


def _snapshot(source: Source) -> Snapshot:
    """Of a hub's repository without a path all files, as splits are told by their names; else those that the path names."""
    path = source.parsed.path
    if not path and source.parsed.scheme is not Scheme.S3:
        return splits.whole_repository(source)
    snapshot = downloads.resolve(source, lambda name: name == path or (_is_below(name, path) and holds_rows(name)))
    if not snapshot.files:
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"{source.field}.source: {source.uri}: there is no file {path!r} (or {', '.join(SUFFIXES)} files in it); "
            "check the path.",
        )
    return snapshot


def _is_below(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")


def _files_to_read(source: Source, dataset: Dataset) -> Snapshot | None:
    snapshot = _snapshot(source)
    if source.parsed.path or source.parsed.scheme is Scheme.S3:
        return snapshot
    split = splits.split_of(source, dataset, snapshot)
    by_path = {file.path: file for file in snapshot.files}
    return None if split.needs_library else Snapshot(snapshot.revision, tuple(by_path[path] for path in split.files))


def _downloaded(source: Source, snapshot: Snapshot) -> list[DataFile]:
    folder = downloads.provide(source, snapshot)
    prefix = f"{source.parsed.scheme.value}://{source.parsed.owner}"
    return [DataFile(folder / file.path, f"{prefix}/{file.path}") for file in snapshot.files]
