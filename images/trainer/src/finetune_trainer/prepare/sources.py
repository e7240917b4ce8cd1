"""Where the rows of a dataset lie: files on a mounted volume, or a hub's repository."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune_operator.api.dataset import Dataset
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_operator.api.source import Scheme, parse_source
from finetune_trainer.prepare import hub
from finetune_trainer.prepare.readers import SUFFIXES, Row, fill_placeholders, read_rows


@dataclass(frozen=True, slots=True)
class NamedDataset:
    """A dataset and the field of the spec that names it."""

    field: str
    dataset: Dataset


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
        sorted(file for file in path.rglob("*") if file.is_file() and file.suffix in SUFFIXES) if path.is_dir() else []
    )
    if not found:
        what = f"holds no {', '.join(SUFFIXES)} file" if path.is_dir() else "does not exist"
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"{named.field}.source: {source} ({path}) {what}; check the path inside the volume.",
        )
    return found


def local_path(run: RunConfig, source: str, field: str) -> Path | None:
    """Where a source is mounted; None for a hub's. Raises StageFailure where its volume is not mounted."""
    try:
        return run.local_path(source)
    except KeyError as error:
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"{field}.source: {source}: {error} is not mounted; use `finetune run` with file://.",
        ) from error


def rows_of(run: RunConfig, named: NamedDataset) -> Iterator[Row]:
    """The dataset's rows in order, placeholders filled in, cut at maxSamples."""
    limit = named.dataset.max_samples
    placeholders = named.dataset.placeholders or {}
    for count, row in enumerate(_all_rows(run, named)):
        if count == limit:
            return
        yield Row(row.place, fill_placeholders(row.value, placeholders), row.problem)


def _all_rows(run: RunConfig, named: NamedDataset) -> Iterator[Row]:
    source = named.dataset.source
    if parse_source(source).scheme is Scheme.HUGGING_FACE:
        yield from hub.dataset_rows(run, named.dataset, named.field)
        return
    root = local_path(run, source, named.field)
    for path in local_files(run, named):
        inside = "" if path == root or root is None else f"/{path.relative_to(root)}"
        yield from read_rows(path, source.removeprefix("file://") + inside)
