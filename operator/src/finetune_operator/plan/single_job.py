"""A stage that is one Job of one name: prepare and merge. Kubernetes itself retries lost pods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.api import conditions
from finetune_operator.build.types import Manifest
from finetune_operator.plan import suspend
from finetune_operator.plan.ending import judge
from finetune_operator.plan.failure import fail
from finetune_operator.plan.job_state import failed_because, is_complete, is_failed, tries
from finetune_operator.plan.step import AT_ONCE, Step, false, true
from finetune_operator.plan.types import PodEnd
from finetune_operator.plan.watch import watch
from finetune_operator.plan.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleJob:
    """One such stage."""

    condition: str
    """Condition that says whether the stage is done."""
    running: str
    """Reason of Ready while it runs."""
    doing: str
    """What its pod does, in words."""
    done: str
    """What stands once it is done, in words."""
    name: str
    """Name of its Job."""
    build: Callable[[], Manifest]
    fields: Callable[[PodEnd | None], Mapping[str, Any]]
    """Status fields that its last words fill."""


def advance(world: World, stage: SingleJob) -> Step:
    """Bring the stage on: start it, watch it, or take down how it ended."""
    job = world.own("Job", stage.name)
    if job is None:
        return _start(world, stage)
    if is_complete(job):
        return _finish(world, stage)
    if is_failed(job):
        return _fail(world, stage, job)
    return watch(world, job, stage=stage.condition, running=stage.running, doing=stage.doing)


def _start(world: World, stage: SingleJob) -> Step:
    if world.suspended:
        return Step(ready=suspend.paused())
    ready = false(conditions.READY, stage.running, f"Job {stage.name}: {stage.doing}")
    return Step(ready=ready, create=(stage.build(),))


def _finish(world: World, stage: SingleJob) -> Step:
    return Step(
        ready=false(conditions.READY, stage.running, stage.done),
        conditions=(true(stage.condition, conditions.SUCCEEDED, stage.done),),
        fields=stage.fields(world.observed.ends.get(stage.name)),
        requeue_after=AT_ONCE,
    )


def _fail(world: World, stage: SingleJob, job: Manifest) -> Step:
    end = world.observed.ends.get(stage.name)
    ending = judge(end)
    if ending.permanent:
        return fail(world, ending.reason, f"Job {stage.name}, {ending.message}", stage=stage.condition, end=end)
    message = (
        f"Job {stage.name} was tried {tries(job)} times ({failed_because(job)}); {ending.reason}, {ending.message} "
        "Mend the cause and create the FineTuneJob anew."
    )
    return fail(world, conditions.RETRIES_EXHAUSTED, message, stage=stage.condition, end=end)
