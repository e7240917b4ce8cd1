"""A loss curve in characters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

WIDTH = 72
HEIGHT = 16
MARK = "*"
LABEL_WIDTH = 9

# The trainer prints one such line a logged step: `step 20/200  loss 0.123  …`.
_LINE = re.compile(r"\bstep (\d+)/\d+\s+loss (\d[\d.]*(?:[eE][-+]?\d+)?)")


class Point(NamedTuple):
    """The loss at one step."""

    step: int
    loss: float


def points_of_lines(lines: Iterable[str]) -> list[Point]:
    """Steps found in a trainer's printed log. A step that was trained again after a restart counts once, as of last."""
    found = (_LINE.search(line) for line in lines)
    return _by_step(Point(int(match[1]), float(match[2])) for match in found if match)


def points_of_records(records: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Steps of trainer_log.jsonl, which has LLaMA-Factory's keys."""
    return _by_step(
        Point(int(record["current_steps"]), float(record["loss"]))
        for record in records
        if record.get("loss") is not None and record.get("current_steps") is not None
    )


def _by_step(points: Iterable[Point]) -> list[Point]:
    return sorted({point.step: point for point in points}.values())


def draw(points: Sequence[Point], width: int = WIDTH, height: int = HEIGHT) -> Iterator[str]:
    """The curve, highest loss on top; several steps that share a column show as their mean."""
    columns = _columns(points, width)
    low, high = min(columns.values()), max(columns.values())
    span = (high - low) or 1.0
    rows = {column: round((high - loss) / span * (height - 1)) for column, loss in columns.items()}
    for row in range(height):
        label = f"{high - span * row / (height - 1):.4g}" if row % 5 == 0 or row == height - 1 else ""
        line = "".join(MARK if rows.get(column) == row else " " for column in range(width))
        yield f"{label:>{LABEL_WIDTH}} |{line}".rstrip()
    first, last = str(points[0].step), str(points[-1].step)
    yield f"{'loss':>{LABEL_WIDTH}} +{'-' * width}"
    yield f"{'step':>{LABEL_WIDTH}}  {first}{last.rjust(width - len(first))}"


def _columns(points: Sequence[Point], width: int) -> dict[int, float]:
    first, last = points[0].step, points[-1].step
    scale = (width - 1) / max(1, last - first)
    columns: dict[int, list[float]] = {}
    for point in points:
        columns.setdefault(round((point.step - first) * scale), []).append(point.loss)
    return {column: sum(losses) / len(losses) for column, losses in columns.items()}
