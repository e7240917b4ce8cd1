"""A row of a dataset file and the place it stands at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
