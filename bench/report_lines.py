"""The lines of bench/results, as tables: what was measured on the same work, in the newest file that has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Measurements that can be compared with each other."""

    key: str
    """The work, fit for a file's name, such as 7b-chat."""
    file: str
    """Where the lines stand: a name in bench/results."""
    lines: list[Line]

    def by_way(self) -> dict[str, list[Line]]:
        """The lines of each way that were measured, in the file's order."""
        ways: dict[str, list[Line]] = {}
        for line in self.lines:
            ways.setdefault(line["way"], []).append(line)
        return ways


def newest_tables(folder: Path, bench: str) -> list[Table]:
    """The tables of a bench; of two files with the same work the one whose last line is the newest."""
    tables: dict[str, Table] = {}
    for file in sorted(folder.glob("*.jsonl"), key=_newest):
        found: dict[str, list[Line]] = {}
        for line in _lines(file):
            if line["bench"] == bench and "error" not in line:
                found.setdefault(_key(line), []).append(line)
        tables |= {key: Table(key, file.name, _last(lines)) for key, lines in found.items()}
    return [tables[key] for key in sorted(tables)]


def _newest(file: Path) -> tuple[str, str]:
    return max((line["at"] for line in _lines(file)), default=""), file.name


def _lines(file: Path) -> Iterator[Line]:
    """Those of the benches; the memory estimate's measurements lie in the same folder and have a report of their own."""
    for text in file.read_text().splitlines():
        line: Line = json.loads(text)
        if "variant" in line:
            # The first ones did not say what they were.
            yield {"bench": "train", "shape": "7b", "rows": "chat", **line, "way": line["variant"]}
        elif "bench" in line:
            yield line


def _key(line: Line) -> str:
    work = {
        "train": ("shape", "rows"),
        "merge": ("shape",),
        "prepare": ("rows",),
        "serve": ("shape", "device"),
    }[line["bench"]]
    several = [f"{line['cards']}-cards"] if line["bench"] == "train" and line.get("cards", 1) > 1 else []
    return "-".join([*(str(line[name]) for name in work), *several])


def _last(lines: list[Line]) -> list[Line]:
    """Of a way and repetition that was measured again, the last line."""
    return list({(line["way"], line.get("repetition")): line for line in lines}.values())
