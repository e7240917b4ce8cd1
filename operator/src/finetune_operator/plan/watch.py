"""A stage's Job that has not finished: what it waits for."""

from __future__ import annotations

from finetune_operator.api import conditions
from finetune_operator.build.types import Manifest
from finetune_operator.plan import suspend
from finetune_operator.plan.job_state import is_being_deleted, is_suspended
from finetune_operator.plan.step import Step, false, unknown
from finetune_operator.plan.world import World

_DELETION_SECONDS = 5.0


def watch(world: World, job: Manifest, *, stage: str, running: str, doing: str) -> Step:
    """What to say of an unfinished Job.

    ``stage`` is the stage's condition, ``running`` the reason of Ready while it runs, ``doing`` what it does, in words.
    """
    name = job["metadata"]["name"]
    verdict = unknown(stage, conditions.RUNNING, f"Job {name}: {doing}")
    if world.suspended:
        return Step(ready=suspend.paused(), conditions=(verdict,))
    if is_being_deleted(job):
        message = f"Job {name} is being deleted; it is made anew when its pods are gone"
        return Step(
            ready=false(conditions.READY, running, message), conditions=(verdict,), requeue_after=_DELETION_SECONDS
        )
    held = _held_back(world, name, job)
    ready = (
        false(conditions.READY, conditions.QUEUED, held) if held else false(conditions.READY, running, verdict.message)
    )
    return Step(ready=ready, conditions=(verdict,))


def _held_back(world: World, name: str, job: Manifest) -> str | None:
    resuming = world.is_true(conditions.SUSPENDED)
    if is_suspended(job) and not resuming:
        return f"Job {name} is suspended by a queue: {world.observed.waiting.get(name, 'it waits to be admitted')}"
    waiting = world.observed.waiting.get(name)
    return f"pod of Job {name} waits: {waiting}" if waiting else None
