"""How often and how soon training is tried again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from itertools import takewhile

from finetune_operator.api import conditions
from finetune_operator.api.status import Attempt
from finetune_operator.plan import instants
from finetune_operator.plan.world import World

REMEMBERED = 16
"""Attempts that the status lists."""
_LONGEST_PAUSE = 600.0


def remember(attempts: Sequence[Attempt], ended: Attempt) -> list[Attempt]:
    """The last attempts that ended, with one more."""
    return [*attempts, ended][-REMEMBERED:]


def strikes(attempts: Sequence[Attempt]) -> int:
    """Ended attempts that count against maxRetries; a pre-empted one does not.

    The status remembers 16. Where all of these count, those before are taken to have counted as well; where some do
    not, those before are forgiven.
    """
    counted = [attempt for attempt in attempts if not _was_preempted(attempt)]
    return attempts[-1].number + 1 if len(counted) == REMEMBERED else len(counted)


def pause(attempts: Sequence[Attempt], first: float) -> float:
    """Seconds between the last attempt and the next: doubled with each failure in a row, up to 10 minutes."""
    in_a_row = len(list(takewhile(lambda attempt: not _was_preempted(attempt), reversed(attempts))))
    return min(_LONGEST_PAUSE, first * 2.0 ** max(0, in_a_row - 1))


def pause_left(world: World) -> float:
    """Seconds until the next attempt may start; 0 where it may now."""
    attempts = world.status.attempts
    if not attempts or attempts[-1].finished is None:
        return 0.0
    length = dt.timedelta(seconds=pause(attempts, world.settings.retry_delay_seconds))
    return instants.seconds_until(instants.from_text(attempts[-1].finished) + length, world.now)


def _was_preempted(attempt: Attempt) -> bool:
    return attempt.reason == conditions.PREEMPTED
