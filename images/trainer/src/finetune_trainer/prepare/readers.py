"""Rows of a dataset file, each with the place it stands at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands. Shown as file:LINE, or file[ELEMENT] for a list or table (elements count from 0)."""

    file: str
    number: int
    is_line: bool = True

    def __str__(self) -> str:
        return f"{self.file}:{self.number}" if self.is_line else f"{self.file}[{self.number}]"


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was read, or what is wrong with its text."""

    place: Place
    value: Any = None
    problem: str | None = None


def read_rows(path: Path, shown_as: str) -> Iterator[Row]:
    """Rows of a JSON Lines, JSON (one array) or Parquet file; ``shown_as`` is its name in messages.

    JSON Lines and a JSON array are told apart by their first character, as their suffixes are often swapped.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, shown_as)
    elif _first_character(path) == b"[":
        yield from _array_rows(path, shown_as)
    else:
        yield from _line_rows(path, shown_as)


def _first_character(path: Path) -> bytes:
    with path.open("rb") as file:
        while block := file.read(4096):
            stripped = block.removeprefix(b"\xef\xbb\xbf").lstrip()
            if stripped:
                return stripped[:1]
    return b""


def _line_rows(path: Path, shown_as: str) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
            if text:
                yield _parsed(text, Place(shown_as, number))


def _parsed(text: bytes, place: Place) -> Row:
    try:
        return Row(place, json.loads(text.decode("utf-8")))
    except UnicodeDecodeError as error:
        return Row(place, problem=f"is not UTF-8 at byte {error.start} of the line; save the file as UTF-8")
    except json.JSONDecodeError as error:
        return Row(
            place,
            problem=f"malformed JSON at column {error.colno} ({error.msg}), expected one object a line, or one array",
        )


def _array_rows(path: Path, shown_as: str) -> Iterator[Row]:
    try:
        elements = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        yield Row(Place(shown_as, 1), problem=f"is not UTF-8 at byte {error.start} of the file; save it as UTF-8")
        return
    except json.JSONDecodeError as error:
        yield Row(Place(shown_as, error.lineno), problem=f"malformed JSON at column {error.colno} ({error.msg})")
        return
    for number, element in enumerate(elements):
        yield Row(Place(shown_as, number, is_line=False), element)


def _parquet_rows(path: Path, shown_as: str) -> Iterator[Row]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1000):
            for value in batch.to_pylist():
                yield Row(Place(shown_as, number, is_line=False), value)
                number += 1
    except pyarrow.ArrowInvalid as error:
        yield Row(Place(shown_as, number, is_line=False), problem=f"is not a readable Parquet file: {error}")


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
