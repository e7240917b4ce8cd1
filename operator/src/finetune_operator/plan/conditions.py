"""Conditions as metav1.Condition wants them kept. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence

from finetune_operator.api.status import Condition
from finetune_operator.plan import instants
from finetune_operator.plan.step import Verdict

MESSAGE_LIMIT = 4096
"""Characters of a condition's message that the schema admits. Counted in bytes, so that the whole status stays small."""
_REASON_LIMIT = 253
_CUT = " […]"
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters but tab and newline. A terminal that `kubectl describe` prints them to would obey them."""


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
    """The message in printable characters, cut to so many bytes of UTF-8."""
    encoded = printable(message).encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - len(_CUT.encode())].decode(errors="ignore") + _CUT


def ending(text: str, limit: int) -> str:
    """The last so many bytes of UTF-8, in printable characters."""
    return printable(text).encode(errors="replace")[-limit:].decode(errors="ignore")


def printable(text: str) -> str:
    """The text without what a terminal would obey. It may quote rows and file names of anybody."""
    return _UNPRINTABLE.sub("\ufffd", text)
