"""spec.activeDeadlineSeconds: how long a job may take from its start to its end."""

from __future__ import annotations

import datetime as dt

from finetune_operator.api import conditions
from finetune_operator.plan import instants
from finetune_operator.plan.failure import fail
from finetune_operator.plan.step import Step
from finetune_operator.plan.world import World


def policy(world: World) -> Step | None:
    """Fail an unfinished job whose time is over; else come back when it will be."""
    limit = world.spec.active_deadline_seconds
    if limit is None or world.is_true(conditions.COMPLETE):
        return None
    left = instants.seconds_until(world.started + dt.timedelta(seconds=limit), world.now)
    if left > 0:
        return Step(requeue_after=left)
    message = (
        f"activeDeadlineSeconds of {limit} have passed since {instants.to_text(world.started)}; running pods were "
        f"stopped. Create the job anew with a longer activeDeadlineSeconds, or more GPUs."
    )
    return fail(world, conditions.DEADLINE_EXCEEDED, message, stage=_current_stage(world))


def _current_stage(world: World) -> str | None:
    stages = [conditions.PREPARED, conditions.TRAINED]
    stages += [conditions.MERGED] if world.spec.wants_merge else []
    stages += [conditions.SERVED] if world.spec.wants_serving else []
    return next((stage for stage in stages if not world.is_true(stage)), None)
