"""Children that have had their time."""

from __future__ import annotations

import datetime as dt

from finetune_operator.plan import instants
from finetune_operator.plan.job_state import is_being_deleted
from finetune_operator.plan.step import Step
from finetune_operator.plan.world import World


def policy(world: World) -> Step | None:
    """After ttlSecondsAfterFinished, delete the Jobs of a job that has ended, with their pods and logs."""
    left = _expires_in(world)
    if left is None:
        return None
    return Step(requeue_after=left) if left > 0 else Step(delete=_jobs(world))


def _expires_in(world: World) -> float | None:
    lifetime, end = world.spec.ttl_seconds_after_finished, world.status.completion_time
    if lifetime is None or end is None:
        return None
    return instants.seconds_until(instants.from_text(end) + dt.timedelta(seconds=lifetime), world.now)


def _jobs(world: World) -> tuple[tuple[str, str], ...]:
    return tuple(("Job", name) for name, job in world.own_jobs() if not is_being_deleted(job))
