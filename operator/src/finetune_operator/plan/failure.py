"""The terminal failure of a job: what it says and what it takes down."""

from __future__ import annotations

from finetune_operator.api import conditions, names
from finetune_operator.plan import instants
from finetune_operator.plan.conditions import MESSAGE_LIMIT, ending, truncate
from finetune_operator.plan.job_state import is_being_deleted, is_finished
from finetune_operator.plan.step import Step, false, true
from finetune_operator.plan.types import PodEnd
from finetune_operator.plan.world import World

_ROOM_FOR_MESSAGE = 2500
"""Bytes of a condition's message that leave room for the log."""


def fail(world: World, reason: str, message: str, *, stage: str | None = None, end: PodEnd | None = None) -> Step:
    """The job cannot go on. ``stage`` is the condition of the stage that failed, ``end`` how its pod ended."""
    decided = (false(stage, reason, message),) if stage else ()
    return Step(
        ready=false(conditions.READY, conditions.FAILED, message),
        conditions=(*decided, true(conditions.FAILED, reason, _with_logs(message, end, world.settings.log_lines))),
        fields={"completion_time": instants.to_text(world.now)},
        delete=teardown(world),
    )


def policy(world: World) -> Step | None:
    """A failed job stays failed: nothing is created, whatever is deleted under it."""
    failed = world.condition(conditions.FAILED)
    if failed is None or not world.is_true(conditions.FAILED):
        return None
    ready = world.condition(conditions.READY)
    message = ready.message if ready else failed.message
    return Step(ready=false(conditions.READY, conditions.FAILED, message), delete=teardown(world))


def teardown(world: World) -> tuple[tuple[str, str], ...]:
    """What still runs. Finished Jobs stay, with their logs, until ttlSecondsAfterFinished."""
    running = [("Job", name) for name, job in world.own_jobs() if not (is_finished(job) or is_being_deleted(job))]
    return (*running, *own(world, ("Service", world.train_name)), *serving_children(world))


def serving_children(world: World) -> tuple[tuple[str, str], ...]:
    """The Deployment, its Service and its PodDisruptionBudget, as far as they exist."""
    name = names.serve(world.job.name)
    return own(world, ("Deployment", name), ("Service", name), ("PodDisruptionBudget", name))


def own(world: World, *children: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Those of the children that exist, belong to the job, and are not on their way out."""
    found = [(kind, name, world.own(kind, name)) for kind, name in children]
    return tuple((kind, name) for kind, name, child in found if child and not is_being_deleted(child))


def _with_logs(message: str, end: PodEnd | None, lines: int) -> str:
    logs = list(end.logs[-lines:]) if end and lines else []
    if not logs or end is None:
        return message
    heading = f"{truncate(message, _ROOM_FOR_MESSAGE)}\nLast log lines of pod {end.pod}:\n"
    # The end of a log says why; of too long a log the beginning goes.
    return heading + ending("\n".join(logs), MESSAGE_LIMIT - len(heading.encode()))
