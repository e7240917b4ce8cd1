"""status.progress: what a trainer reported, in words, and not too often."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from finetune_operator.api import progress as names
from finetune_operator.api.status import Progress, Results
from finetune_operator.plan import instants
from finetune_operator.plan.figures import percent, significant
from finetune_operator.plan.types import Report
from finetune_operator.plan.world import World

_SHORTEST_INTERVAL = dt.timedelta(seconds=10)
"""Every write of the status goes to everyone who watches FineTuneJobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The progress to show, and when a newer report may be shown."""

    progress: Progress | None
    requeue_after: float | None = None


def advance(world: World) -> Shown:
    """Take the newest report over, at most once in 10 seconds or 1 %."""
    old, report = world.status.progress, world.observed.report
    if report is None:
        return Shown(progress=old)
    new = _from_report(report, old)
    if old is None or old.updated is None:
        return Shown(progress=new)
    last = instants.from_text(old.updated)
    if new.updated is None or instants.from_text(new.updated) <= last:
        return Shown(progress=old)
    wait = last + _SHORTEST_INTERVAL - world.now
    if new.percent != old.percent or wait <= dt.timedelta():
        return Shown(progress=new)
    return Shown(progress=old, requeue_after=wait.total_seconds())


def finished(world: World, results: Results | None) -> Progress:
    """The progress once training is done: everything."""
    old, report = world.status.progress, world.observed.report
    last = _from_report(report, old) if report else old or Progress()
    steps = (results.steps if results else None) or last.total_steps
    done = {"step": steps, "total_steps": steps, "percent": "100%", "summary": f"{steps}/{steps}", "eta": None}
    # The last report may not have got through; the trainer's last words did.
    loss = {"loss": results.last_loss} if results and results.last_loss else {}
    return last.model_copy(update={**done, **loss})


def sooner(*pauses: float | None) -> float | None:
    """The shortest of the pauses that are asked for."""
    asked = [pause for pause in pauses if pause is not None]
    return min(asked) if asked else None


def eta(seconds: int | None) -> str | None:
    """Time left in the two largest units: 45s, 12m, 1h20m, 2d4h."""
    if seconds is None:
        return None
    if seconds < 60:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes}m"
    hours = minutes // 60
    return f"{hours}h{minutes % 60}m" if hours < 24 else f"{hours // 24}d{hours % 24}h"


def _from_report(report: Report, old: Progress | None) -> Progress:
    step, total = report.step, report.total_steps
    # The Hugging Face Trainer's last report leaves the steps out.
    if total == 0 and old is not None:
        step, total = old.step, old.total_steps
    return Progress(
        step=step,
        total_steps=total,
        percent=f"{100 * step // total if total else 0}%",
        summary=f"{step}/{total}",
        epoch=_metric(report, names.EPOCH, "current_epoch"),
        loss=_metric(report, names.LOSS, "train_loss"),
        eval_loss=_metric(report, names.EVAL_LOSS),
        learning_rate=_metric(report, names.LEARNING_RATE),
        tokens_per_second=_metric(report, names.TOKENS_PER_SECOND),
        tflops_per_second=_metric(report, names.TFLOPS_PER_SECOND),
        share_of_limit=_share(report, names.SHARE_OF_LIMIT),
        data_wait_share=_share(report, names.DATA_WAIT_SHARE),
        eta=eta(report.remaining_seconds),
        updated=instants.to_text(report.received),
    )


def _metric(report: Report, *known_as: str) -> str | None:
    """The first of the names that was reported."""
    found = next((report.metrics[name] for name in known_as if name in report.metrics), None)
    return None if found is None else significant(found)[:253]


def _share(report: Report, name: str) -> str | None:
    found = report.metrics.get(name)
    return None if found is None else percent(found)[:253]
