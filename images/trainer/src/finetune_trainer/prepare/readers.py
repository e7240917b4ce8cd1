"""Rows of a dataset file, each with the place it stands at."""

from __future__ import annotations

import io
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_trainer.prepare.csv_rows import csv_rows
from finetune_trainer.prepare.file_kind import SUFFIXES, Kind, UnreadableError, holds_rows, kind_of, opened
from finetune_trainer.prepare.json_array import array_rows
from finetune_trainer.prepare.json_rows import line_rows
from finetune_trainer.prepare.rows import Place, Row

__all__ = ["SUFFIXES", "Place", "Row", "fill_placeholders", "holds_rows", "read_rows"]

_TEXT: Mapping[Kind, Callable[[io.BufferedReader, str], Iterator[Row]]] = {
    Kind.LINES: line_rows,
    Kind.ARRAY: array_rows,
    Kind.CSV: csv_rows,
}


def read_rows(path: Path, shown_as: str) -> Iterator[Row]:
    """Rows of a JSON Lines, JSON (one array), CSV, Parquet or Arrow file, also compressed with gzip or zstd.

    Memory stays flat whatever the file's size. ``shown_as`` is its name in messages. Nothing is raised for what is
    wrong inside the file: that is a row with a problem.
    """
    last = Place(shown_as, 0)
    try:
        with opened(path) as stream:
            for row in _rows(stream, kind_of(stream, path.name), shown_as):
                last = row.place
                yield row
    except UnreadableError as error:
        yield Row(Place(shown_as, 1), problem=str(error))
    # A damaged gzip file ends in any of these; zstd's library and the disk say OSError.
    except (EOFError, zlib.error, OSError) as error:
        yield Row(
            Place(shown_as, last.number + 1, last.is_line),
            problem=f"the file cannot be read from here on ({error}), expected a whole one; copy it again",
        )


def _rows(stream: io.BufferedReader, kind: Kind, shown_as: str) -> Iterator[Row]:
    if (read := _TEXT.get(kind)) is not None:
        yield from read(stream, shown_as)
        return
    # Imported late: it takes its time, and most rows are text.
    from finetune_trainer.prepare.table_rows import arrow_file_rows, arrow_stream_rows, parquet_rows

    if kind is Kind.ARROW_STREAM:
        yield from arrow_stream_rows(stream, shown_as)
        return
    with tempfile.TemporaryFile() as unpacked:
        if not isinstance(stream.raw, io.FileIO):
            # Such a table is read from its end, which a compressed stream has to be unpacked for.
            shutil.copyfileobj(stream, unpacked)
        table = stream if isinstance(stream.raw, io.FileIO) else unpacked
        yield from (parquet_rows if kind is Kind.PARQUET else arrow_file_rows)(table, shown_as)


def fill_placeholders(value: Any, placeholders: dict[str, str]) -> Any:
    """The value with {{key}} replaced in every string, at any depth."""
    if isinstance(value, str):
        for key, text in placeholders.items():
            value = value.replace("{{" + key + "}}", text)
        return value
    if isinstance(value, list):
        return [fill_placeholders(item, placeholders) for item in value]
    if isinstance(value, dict):
        return {key: fill_placeholders(item, placeholders) for key, item in value.items()}
    return value
