"""What one policy decides. The ladder asks policies one after the other and folds their steps into a Plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune_operator.api.status import ConditionStatus
from finetune_operator.build.types import Manifest
from finetune_operator.plan.types import Event

AT_ONCE = 0.1
"""Seconds to the next pass after a fact that must stand in the status before anything is built on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A condition as a policy sees it; generation and time are added when it is folded in."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one policy wants done and said."""

    ready: Verdict | None = None
    """The Ready condition. A step that has one ends the ladder."""
    conditions: tuple[Verdict, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the status to set, by their Python names."""
    create: tuple[Manifest, ...] = ()
    apply: tuple[Manifest, ...] = ()
    patch: tuple[tuple[str, str, Manifest], ...] = ()
    delete: tuple[tuple[str, str], ...] = ()
    events: tuple[Event, ...] = ()
    """What no change of the status tells."""
    requeue_after: float | None = None


def true(type_: str, reason: str, message: str = "") -> Verdict:
    """The condition holds."""
    return Verdict(type=type_, status=ConditionStatus.TRUE, reason=reason, message=message)


def false(type_: str, reason: str, message: str = "") -> Verdict:
    """The condition does not hold."""
    return Verdict(type=type_, status=ConditionStatus.FALSE, reason=reason, message=message)


def unknown(type_: str, reason: str, message: str = "") -> Verdict:
    """The condition is not decided yet."""
    return Verdict(type=type_, status=ConditionStatus.UNKNOWN, reason=reason, message=message)
