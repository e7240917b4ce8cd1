"""Columns as kubectl prints them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

GAP = "   "
UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table; empty cells stay empty."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        yield GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def duration(seconds: float) -> str:
    """The two largest units, such as 1h20m or 45s."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return "".join(parts[:2]) or "0s"


def since(timestamp: str | None, now: dt.datetime) -> str:
    """Time since a Kubernetes timestamp; empty where there is none."""
    if not timestamp:
        return ""
    return duration((now - dt.datetime.fromisoformat(timestamp)).total_seconds())
