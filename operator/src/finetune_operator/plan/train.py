"""Second stage: training, in attempts that go on from the last checkpoint."""

from __future__ import annotations

import datetime as dt

from finetune_operator.api import conditions
from finetune_operator.api.status import Attempt
from finetune_operator.build import headless_service, train_job
from finetune_operator.build.types import Manifest
from finetune_operator.plan import events, failure, figures, instants, progress, retry, suspend
from finetune_operator.plan.conditions import truncate
from finetune_operator.plan.ending import Ending, judge
from finetune_operator.plan.job_state import failed_at, failed_because, is_complete, is_failed, pod_made_way
from finetune_operator.plan.step import AT_ONCE, Step, false, true, unknown
from finetune_operator.plan.types import PodEnd
from finetune_operator.plan.watch import watch
from finetune_operator.plan.world import World

_ATTEMPT_MESSAGE_LIMIT = 1024
_POD_SECONDS = 5.0


def policy(world: World) -> Step | None:
    """Run attempt after attempt until one succeeds, one fails for good, or maxRetries are used up."""
    if world.is_true(conditions.TRAINED):
        return None
    job = world.own("Job", world.train_name)
    if job is None:
        return _absent(world)
    if is_complete(job):
        return _succeeded(world)
    if is_failed(job):
        end = world.observed.ends.get(world.train_name)
        made_way = failed_because(job) if pod_made_way(job) else ""
        return _ended(world, judge(end, made_way), failed_at(job) or world.now, end)
    return _running(world, job)


def _absent(world: World) -> Step:
    if world.suspended:
        waiting = unknown(conditions.TRAINED, conditions.SUSPENDED_BY_USER)
        return Step(ready=suspend.paused(), conditions=(waiting,))
    # The status says that this attempt's Job was seen, so somebody took it away.
    if world.reason(conditions.TRAINED) == conditions.RUNNING:
        return _ended(world, judge(None), world.now, None)
    pause = retry.pause_left(world)
    if pause > 0:
        return _pausing(world, pause)
    if world.observed.training_pods:
        return _waiting_for_pods(world)
    return _start(world)


def _start(world: World) -> Step:
    """Create the attempt's Job. That it runs is written down once it was seen: a refused creation is no lost Job."""
    job = train_job.build(world.job, world.settings, world.attempt, world.observed.operator_namespace)
    message = f"Job {world.train_name}: {_doing(world)}"
    return Step(
        ready=false(conditions.READY, conditions.TRAINING, message),
        conditions=(unknown(conditions.TRAINED, conditions.WAITING, message),),
        fields={"attempt": world.attempt},
        create=(job,),
        apply=_headless_service(world),
    )


def _running(world: World, job: Manifest) -> Step:
    step = watch(world, job, stage=conditions.TRAINED, running=conditions.TRAINING, doing=_doing(world))
    shown = progress.advance(world)
    return Step(
        ready=step.ready,
        conditions=step.conditions,
        # A Job whose creation was not written down any more is taken up here.
        fields={"attempt": world.attempt, "progress": shown.progress},
        apply=_headless_service(world),
        requeue_after=progress.sooner(step.requeue_after, shown.requeue_after),
    )


def _doing(world: World) -> str:
    return f"trains, attempt {world.attempt}"


def _headless_service(world: World) -> tuple[Manifest, ...]:
    return (headless_service.build(world.job, world.attempt),) if world.spec.resources.nodes > 1 else ()


def _succeeded(world: World) -> Step:
    end = world.observed.ends.get(world.train_name)
    results = figures.results(world.status.results, end)
    done = "the adapter is on the volume" if world.spec.is_adapter else "the tuned model is on the volume"
    if why := figures.base_not_rounded(end):
        done += f"; computed in BF16, not FP8Base: {why}"
    return Step(
        ready=false(conditions.READY, conditions.TRAINING, done),
        conditions=(true(conditions.TRAINED, conditions.SUCCEEDED, done),),
        fields={"attempt": world.attempt, "results": results, "progress": progress.finished(world, results)},
        delete=failure.own(world, ("Service", world.train_name)),
        events=events.of_training(end),
        requeue_after=AT_ONCE,
    )


def _ended(world: World, ending: Ending, when: dt.datetime, end: PodEnd | None) -> Step:
    ended = Attempt(
        number=world.attempt,
        exit_code=ending.exit_code,
        reason=ending.reason,
        message=truncate(ending.message, _ATTEMPT_MESSAGE_LIMIT),
        finished=instants.to_text(when),
        seconds=end.seconds if end else None,
    )
    attempts = retry.remember(world.status.attempts, ended)
    step = _after(world, ending, attempts, end)
    return Step(
        ready=step.ready,
        conditions=step.conditions,
        fields={"attempt": world.attempt, "attempts": attempts, **step.fields},
        delete=tuple(dict.fromkeys([*step.delete, *failure.own(world, ("Service", world.train_name))])),
        events=events.of_training(end),
        requeue_after=step.requeue_after,
    )


def _after(world: World, ending: Ending, attempts: list[Attempt], end: PodEnd | None) -> Step:
    what = f"training attempt {world.attempt}: {ending.reason}, {ending.message}"
    if ending.permanent:
        return failure.fail(world, ending.reason, what, stage=conditions.TRAINED, end=end)
    used = retry.strikes(attempts)
    if used > world.spec.max_retries:
        message = f"{used} attempts failed, and maxRetries is {world.spec.max_retries}. The last, {what}"
        return failure.fail(world, conditions.RETRIES_EXHAUSTED, message, stage=conditions.TRAINED, end=end)
    pause = retry.pause(attempts, world.settings.retry_delay_seconds)
    message = f"{what} Attempt {world.attempt + 1} goes on from the last checkpoint in {pause:.0f} s."
    return Step(
        ready=false(conditions.READY, conditions.RETRYING, message),
        conditions=(unknown(conditions.TRAINED, conditions.RETRYING, message),),
        fields={"attempt": world.attempt + 1},
        requeue_after=max(pause, AT_ONCE),
    )


def _pausing(world: World, pause: float) -> Step:
    retrying = world.condition(conditions.TRAINED)
    message = retrying.message if retrying else ""
    return Step(ready=false(conditions.READY, conditions.RETRYING, message), requeue_after=pause)


def _waiting_for_pods(world: World) -> Step:
    # Two pods that write checkpoints to one folder would spoil both.
    pods = ", ".join(world.observed.training_pods)
    message = f"waits for pod {pods} of an earlier attempt to end"
    return Step(ready=false(conditions.READY, conditions.RETRYING, message), requeue_after=_POD_SECONDS)
