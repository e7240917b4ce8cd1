"""What is to be done for one FineTuneJob: the ladder of policies, from the first that can hold everything up to serving."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from finetune_operator.plan import (
    claims,
    cleanup,
    deadline,
    events,
    failure,
    foundation,
    merge,
    ownership,
    prepare,
    serve,
    suspend,
    train,
)
from finetune_operator.plan.progress import sooner
from finetune_operator.plan.status import fold
from finetune_operator.plan.step import Step
from finetune_operator.plan.types import Observed, Plan
from finetune_operator.plan.world import World
from finetune_operator.settings import Settings

Policy = Callable[[World], Step | None]

LADDER: Sequence[Policy] = (
    failure.policy,
    deadline.policy,
    suspend.policy,
    ownership.policy,
    claims.policy,
    foundation.policy,
    prepare.policy,
    train.policy,
    merge.policy,
    serve.policy,
)
"""Asked in this order. The first whose step says what Ready is ends the ladder; a fact that a stage is done is written
down before the next stage is begun, so that a crash between any two writes is made good by asking again."""


def plan(observed: Observed, settings: Settings) -> Plan:
    """Decide, from what was observed and nothing else."""
    world = World(observed, settings)
    steps = [step for step in (*_climb(world), cleanup.policy(world)) if step]
    status = fold(world, steps)
    return Plan(
        create=tuple(manifest for step in steps for manifest in step.create),
        apply=tuple(manifest for step in steps for manifest in step.apply),
        patch=tuple(patch for step in steps for patch in step.patch),
        delete=tuple(dict.fromkeys(child for step in steps for child in step.delete)),
        status=status,
        events=(
            *(event for step in steps for event in step.events),
            *events.between(observed.job.status, status),
        ),
        requeue_after=sooner(*(step.requeue_after for step in steps)),
    )


def _climb(world: World) -> list[Step]:
    steps: list[Step] = []
    for policy in LADDER:
        step = policy(world)
        if step is not None:
            steps.append(step)
            if step.ready is not None:
                break
    return steps
