"""The status, folded from the one before and the steps of all policies. The only place that writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune_operator.api import conditions
from finetune_operator.api.status import Condition, ConditionStatus, FineTuneJobStatus
from finetune_operator.build.storage import location
from finetune_operator.plan import instants
from finetune_operator.plan.conditions import find, remove_condition, set_condition
from finetune_operator.plan.step import Step, Verdict, false, true, unknown
from finetune_operator.plan.world import World

_ORDER = (
    conditions.READY,
    conditions.PREPARED,
    conditions.TRAINED,
    conditions.MERGED,
    conditions.SERVED,
    conditions.COMPLETE,
    conditions.FAILED,
    conditions.SUSPENDED,
    conditions.RECONCILING,
    conditions.STALLED,
)
_ABNORMAL = (conditions.RECONCILING, conditions.STALLED)


def fold(world: World, steps: Sequence[Step]) -> FineTuneJobStatus:
    """The new status. Equal to the old one where nothing changed."""
    update: dict[str, Any] = {
        "observed_generation": world.job.generation,
        "start_time": world.status.start_time or instants.to_text(world.now),
        "volume": location(world.job),
    }
    for step in steps:
        update |= step.fields
    update["conditions"] = _fold_conditions(world, steps)
    if _is_true(find(update["conditions"], conditions.COMPLETE)):
        update["completion_time"] = world.status.completion_time or instants.to_text(world.now)
    return world.status.model_copy(update=update)


def _fold_conditions(world: World, steps: Sequence[Step]) -> list[Condition]:
    verdicts = {verdict.type: verdict for verdict in _standing(world)}
    verdicts |= {verdict.type: verdict for step in steps for verdict in step.conditions}
    verdicts |= {step.ready.type: step.ready for step in steps if step.ready}
    verdicts[conditions.COMPLETE] = _complete(world, verdicts)
    abnormal = _abnormal(verdicts)
    for type_ in _ABNORMAL:
        verdicts.pop(type_, None)
    wanted = [*verdicts.values(), *([abnormal] if abnormal else [])]
    folded = world.status.conditions
    for type_ in _ABNORMAL:
        folded = folded if abnormal and abnormal.type == type_ else remove_condition(folded, type_)
    for verdict in wanted:
        folded = set_condition(folded, verdict, generation=world.job.generation, now=world.now)
    return sorted(folded, key=_position)


def _standing(world: World) -> list[Verdict]:
    """Conditions as they stand; those that were never written, at first sight."""
    first = {
        conditions.READY: false(conditions.READY, conditions.PENDING),
        conditions.PREPARED: unknown(conditions.PREPARED, conditions.WAITING),
        conditions.TRAINED: unknown(conditions.TRAINED, conditions.WAITING),
        conditions.MERGED: _asked_for(conditions.MERGED, world.spec.wants_merge),
        conditions.SERVED: _asked_for(conditions.SERVED, world.spec.wants_serving),
        conditions.FAILED: false(conditions.FAILED, conditions.RUNNING),
    }
    standing = {
        condition.type: _verdict(condition) for condition in world.status.conditions if condition.type in _ORDER
    }
    # Serving may be asked for, and asked for no more, at any time.
    if standing.get(conditions.SERVED, first[conditions.SERVED]).reason in (
        conditions.NOT_REQUESTED,
        conditions.WAITING,
    ):
        standing.pop(conditions.SERVED, None)
    return list((first | standing).values())


def _asked_for(type_: str, wanted: bool) -> Verdict:
    return unknown(type_, conditions.WAITING) if wanted else false(type_, conditions.NOT_REQUESTED)


def _verdict(condition: Condition) -> Verdict:
    return Verdict(type=condition.type, status=condition.status, reason=condition.reason, message=condition.message)


def _complete(world: World, verdicts: Mapping[str, Verdict]) -> Verdict:
    """Once everything that was asked for has been reached, the job stays complete, whatever serving does later."""
    if world.is_true(conditions.COMPLETE):
        return verdicts[conditions.COMPLETE]
    if verdicts[conditions.READY].status is ConditionStatus.TRUE:
        return true(conditions.COMPLETE, conditions.SUCCEEDED, verdicts[conditions.READY].message)
    failed = verdicts[conditions.FAILED]
    return false(conditions.COMPLETE, failed.reason)


def _abnormal(verdicts: Mapping[str, Verdict]) -> Verdict | None:
    """kstatus' view: Stalled after a failure and while serving cannot start, Reconciling while work is under way, else neither."""
    ready, failed = verdicts[conditions.READY], verdicts[conditions.FAILED]
    if failed.status is ConditionStatus.TRUE:
        return true(conditions.STALLED, failed.reason, ready.message)
    if ready.reason == conditions.NOT_STARTING:
        return true(conditions.STALLED, ready.reason, ready.message)
    if ready.status is ConditionStatus.TRUE or ready.reason == conditions.SUSPENDED_BY_USER:
        return None
    return true(conditions.RECONCILING, ready.reason, ready.message)


def _position(condition: Condition) -> int:
    return _ORDER.index(condition.type) if condition.type in _ORDER else len(_ORDER)


def _is_true(condition: Condition | None) -> bool:
    return condition is not None and condition.status is ConditionStatus.TRUE
