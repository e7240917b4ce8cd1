"""Figures of finished stages, from their termination messages into the status.

The images name a figure as the status field that shows it: rows, trainLoss, mergeMaxDifference. Others are theirs.
"""

from __future__ import annotations

import math

from pydantic import ValidationError

from finetune_operator.api.outcome import BASE_NOT_ROUNDED, SKIPPED_CHECKPOINTS, Figure, TerminationMessage
from finetune_operator.api.status import DatasetStatus, Results
from finetune_operator.plan.types import PodEnd


def dataset(end: PodEnd | None) -> DatasetStatus | None:
    """What prepare counted; None where its pod left no figures."""
    counted = _figures(end)
    try:
        return DatasetStatus.model_validate(counted) if counted else None
    except ValidationError:
        # The stage did succeed: figures of another version's image must not turn that into a failure.
        return None


def results(old: Results | None, end: PodEnd | None) -> Results | None:
    """The results with the figures of one more stage added, fractions as decimal strings."""
    known = old.to_manifest() if old else {}
    found = {name: _decimal(value) for name, value in _figures(end).items()}
    try:
        merged = Results.model_validate(known | found)
    except ValidationError:
        return old
    return merged if merged != Results() else None


def skipped_checkpoints(end: PodEnd | None) -> str:
    """The checkpoints that training did not go on from, with why; empty where there were none."""
    return str(_figures(end).get(SKIPPED_CHECKPOINTS, ""))


def base_not_rounded(end: PodEnd | None) -> str:
    """Why training did not compute in precision FP8Base; empty where it did, or was not asked to."""
    return str(_figures(end).get(BASE_NOT_ROUNDED, ""))


def significant(value: Figure) -> str:
    """A figure with four significant digits, large ones whole: 1.234, 17221, 1.5e-05."""
    try:
        number = float(value)
    except ValueError:
        return str(value)
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def percent(value: str) -> str:
    """A share as people read it: 0.4912 is 49.1%. What is no number stays as it is."""
    try:
        return f"{100 * float(value):.3g}%"
    except ValueError:
        return value


def share(text: str | None) -> float | None:
    """The number behind ``percent``: 49.1% is 0.491. None for what is no finite number."""
    number = finite(text.removesuffix("%") if text else None)
    return None if number is None else number / 100


def finite(text: str | None) -> float | None:
    """The number that a text is; None for what is no finite number."""
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _decimal(value: Figure) -> Figure:
    return significant(value) if isinstance(value, float) else value


def _figures(end: PodEnd | None) -> dict[str, Figure]:
    last_words = TerminationMessage.decode(end.message) if end else None
    return dict(last_words.figures) if last_words else {}
