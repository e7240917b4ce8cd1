"""Kubernetes events: one for each change that a person would want to be told of."""

from __future__ import annotations

from finetune_operator.api import conditions
from finetune_operator.api.status import Condition, ConditionStatus, FineTuneJobStatus
from finetune_operator.plan import figures
from finetune_operator.plan.conditions import find, truncate
from finetune_operator.plan.types import Event, PodEnd

_MESSAGE_LIMIT = 1000
"""Bytes; Kubernetes refuses events over 1024 bytes."""
_FACTS = (
    conditions.PREPARED,
    conditions.TRAINED,
    conditions.MERGED,
    conditions.SERVED,
    conditions.COMPLETE,
)
_WARNINGS = frozenset(
    {conditions.RETRYING, conditions.NAME_TAKEN, conditions.CLAIM_NOT_FOUND, conditions.NOT_STARTING},
)
_TOLD_ELSEWHERE = frozenset({conditions.FAILED, conditions.SERVING, conditions.COMPLETED})
"""Reasons of Ready for which the conditions Failed, Served and Complete have their own events."""


def between(old: FineTuneJobStatus, new: FineTuneJobStatus) -> tuple[Event, ...]:
    """Events for what changed from one status to the next."""
    facts = [event for type_ in _FACTS if (event := _fact(old, new, type_))]
    return tuple(event for event in [_failure(old, new), *facts, _no_answer(old, new), _stage(old, new)] if event)


def skipped_checkpoints(end: PodEnd | None) -> tuple[Event, ...]:
    """An event where training found checkpoints that it could not go on from."""
    skipped = figures.skipped_checkpoints(end)
    message = f"not resumed from: {skipped}. Training went on from the newest one that is whole."
    return (_warning(conditions.CHECKPOINT_SKIPPED, message),) if skipped else ()


def of_training(end: PodEnd | None) -> tuple[Event, ...]:
    """Events that an attempt's last words ask for, whether it succeeded or not."""
    return skipped_checkpoints(end) + base_not_rounded(end)


def base_not_rounded(end: PodEnd | None) -> tuple[Event, ...]:
    """An event where rounding the base to float8 would have done harm, and was left."""
    why = figures.base_not_rounded(end)
    return (_warning(conditions.BASE_NOT_ROUNDED, f"computed in BF16, not FP8Base: {why}."),) if why else ()


def _warning(reason: str, message: str) -> Event:
    return Event(type="Warning", reason=reason, message=truncate(message, _MESSAGE_LIMIT))


def _fact(old: FineTuneJobStatus, new: FineTuneJobStatus, type_: str) -> Event | None:
    condition = find(new.conditions, type_)
    if not _is_true(condition) or _is_true(find(old.conditions, type_)):
        return None
    return _event("Normal", type_, condition)


def _failure(old: FineTuneJobStatus, new: FineTuneJobStatus) -> Event | None:
    failed = find(new.conditions, conditions.FAILED)
    if failed is None or not _is_true(failed) or _is_true(find(old.conditions, conditions.FAILED)):
        return None
    return _event("Warning", failed.reason, failed)


def _no_answer(old: FineTuneJobStatus, new: FineTuneJobStatus) -> Event | None:
    served = find(new.conditions, conditions.SERVED)
    stopped = _is_true(find(old.conditions, conditions.SERVED)) and not _is_true(served)
    if served is None or not stopped or served.reason != conditions.NOT_ANSWERING:
        return None
    return _event("Warning", served.reason, served)


def _stage(old: FineTuneJobStatus, new: FineTuneJobStatus) -> Event | None:
    before, after = find(old.conditions, conditions.READY), find(new.conditions, conditions.READY)
    if after is None or after.reason in _TOLD_ELSEWHERE or (before is not None and before.reason == after.reason):
        return None
    return _event("Warning" if after.reason in _WARNINGS else "Normal", after.reason, after)


def _event(type_: str, reason: str, condition: Condition | None) -> Event:
    message = condition.message if condition else ""
    return Event(type=type_, reason=reason, message=truncate(message, _MESSAGE_LIMIT))


def _is_true(condition: Condition | None) -> bool:
    return condition is not None and condition.status is ConditionStatus.TRUE
