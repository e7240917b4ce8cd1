"""What is said about one file: problems, which end the command, and notes, which do not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

LISTED = 12
"""Names that a message spells out; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Gathers the lines about one file."""

    file: str
    lines: Mapping[str, int]
    """Line of each key that stands in the file, from 1."""
    problems: list[tuple[int, str]] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)

    def problem(self, key: str, text: str) -> None:
        """Something that has to be mended."""
        line = self.lines.get(key, 0)
        place = f"{self.file}:{line}" if line else self.file
        self.problems.append((line, f"{place}: {key}: {text}"))

    def note(self, key: str, text: str) -> None:
        """Something that is done otherwise here, or has nothing to do."""
        self.notes.append((self.lines.get(key, 0), f"{self.file}: {key}: {text}"))


def in_order(entries: Iterable[tuple[int, str]]) -> list[str]:
    """Texts by line; each once."""
    return list(dict.fromkeys(text for _, text in sorted(entries, key=lambda entry: entry[0])))


def closest(word: str, known: Iterable[str]) -> str:
    """``; did you mean X?``, or nothing where no known word is near."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"; did you mean {match[0]}?" if match else ""


def listing(names: Iterable[str]) -> str:
    """Names in a line, not too many of them."""
    every = sorted(names)
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + more if every else "nothing"
