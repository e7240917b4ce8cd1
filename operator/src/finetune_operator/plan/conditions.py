"""Conditions as metav1.Condition wants them kept. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from finetune_operator.api.status import Condition
from finetune_operator.plan import instants
from finetune_operator.plan.step import Verdict

MESSAGE_LIMIT = 4096
"""Characters of a condition's message that the schema admits."""
_REASON_LIMIT = 253
_CUT = " […]"


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of a type; None stands for "not known"."""
    return next((condition for condition in conditions if condition.type == type_), None)


def set_condition(
    conditions: Sequence[Condition], verdict: Verdict, *, generation: int, now: dt.datetime
) -> list[Condition]:
    """The conditions with one of them set. lastTransitionTime moves only when the status flips."""
    old = find(conditions, verdict.type)
    flipped = old is None or old.status is not verdict.status
    new = Condition(
        type=verdict.type,
        status=verdict.status,
        reason=verdict.reason[:_REASON_LIMIT],
        message=truncate(verdict.message),
        observed_generation=generation,
        last_transition_time=instants.to_text(now) if flipped or old is None else old.last_transition_time,
    )
    if old is None:
        return [*conditions, new]
    return [new if condition.type == verdict.type else condition for condition in conditions]


def remove_condition(conditions: Iterable[Condition], type_: str) -> list[Condition]:
    """The conditions without one of them."""
    return [condition for condition in conditions if condition.type != type_]


def truncate(message: str, limit: int = MESSAGE_LIMIT) -> str:
    """The message, cut to what the schema admits."""
    return message if len(message) <= limit else message[: limit - len(_CUT)] + _CUT
