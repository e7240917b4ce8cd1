"""Repetitions of a measured training: its steps after the warm-up, cut into windows of equal length."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median
from typing import Any

WINDOWS = 3
SECONDS = 12.0
"""Of measured steps, before a training that may go on for ever is ended."""

Step = tuple[float, float]
"""Seconds that a step took, and its tokens that are no padding."""


def is_enough(steps: Sequence[Step], warm_up: int, seconds: float = SECONDS) -> bool:
    """Whether the steps after the warm-up fill the windows."""
    measured = steps[warm_up:]
    return len(measured) >= WINDOWS and sum(span for span, _ in measured) >= seconds


def figures(steps: Sequence[Step], warm_up: int) -> dict[str, Any]:
    """Tokens a second: of each window, their median, and how far they lie apart as a share of it.

    Raises ValueError where there are fewer measured steps than windows.
    """
    measured = steps[warm_up:]
    if len(measured) < WINDOWS:
        raise ValueError(f"{len(measured)} steps after the warm-up of {warm_up}, expected at least {WINDOWS}")
    bounds = [round(number * len(measured) / WINDOWS) for number in range(WINDOWS + 1)]
    paces = [_pace(measured[first:end]) for first, end in itertools.pairwise(bounds)]
    return {
        "tokens_per_second": round(median(paces), 1),
        "windows": [round(pace, 1) for pace in paces],
        "spread": spread(paces),
        "steps_measured": len(measured),
        "seconds_measured": round(sum(span for span, _ in measured), 2),
        "tokens_measured": round(sum(tokens for _, tokens in measured)),
    }


def spread(values: Sequence[float]) -> float:
    """Largest minus smallest, as a share of the median."""
    return round((max(values) - min(values)) / median(values), 4)


def _pace(steps: Sequence[Step]) -> float:
    return sum(tokens for _, tokens in steps) / sum(span for span, _ in steps)
