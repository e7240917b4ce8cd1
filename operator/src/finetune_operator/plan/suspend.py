"""spec.suspend: pods stop, and go on from where they were."""

from __future__ import annotations

from finetune_operator.api import conditions
from finetune_operator.build.metadata import has_queue
from finetune_operator.build.types import Manifest
from finetune_operator.plan.job_state import is_being_deleted, is_finished, is_suspended
from finetune_operator.plan.step import AT_ONCE, Step, Verdict, false, true
from finetune_operator.plan.world import World

_PAUSED = "spec.suspend is true: no pods run. Set it to false to go on from the last checkpoint."


def policy(world: World) -> Step | None:
    """Stop or resume the job's own Jobs. The Deployment is scaled where it is built."""
    if world.suspended:
        return _stop(world)
    if world.is_true(conditions.SUSPENDED):
        return _resume(world)
    return None


def _stop(world: World) -> Step:
    suspended = true(conditions.SUSPENDED, conditions.SUSPENDED_BY_USER, _PAUSED)
    # Written down before any Job is touched: only so can a Job that the operator suspended be told, at any later
    # moment, from one that a queue suspended and the operator must not resume.
    if not world.is_true(conditions.SUSPENDED):
        return Step(conditions=(suspended,), requeue_after=AT_ONCE)
    unfinished = [(name, job) for name, job in world.own_jobs() if not (is_finished(job) or is_being_deleted(job))]
    if has_queue(world.job):
        # Kueue would resume a Job that it has admitted; a deleted one gives its quota back.
        return Step(conditions=(suspended,), delete=tuple(("Job", name) for name, _ in unfinished))
    patches = tuple(_suspension(name, True) for name, job in unfinished if not is_suspended(job))
    return Step(conditions=(suspended,), patch=patches)


def _resume(world: World) -> Step:
    held = [name for name, job in world.own_jobs() if is_suspended(job) and not is_finished(job)]
    if held and not has_queue(world.job):
        return Step(patch=tuple(_suspension(name, False) for name in held))
    return Step(conditions=(false(conditions.SUSPENDED, conditions.RUNNING),))


def paused() -> Verdict:
    """What Ready says while the job is suspended."""
    return false(conditions.READY, conditions.SUSPENDED_BY_USER, _PAUSED)


def _suspension(name: str, value: bool) -> tuple[str, str, Manifest]:
    return "Job", name, {"spec": {"suspend": value}}
