"""What trainers report about their progress, and the newest report of each job."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from finetune_operator.api.progress import CURRENT_STEP, TOTAL_STEPS
from finetune_operator.plan.types import Report
from finetune_operator.shell.queue import Key

_REMEMBERED = 10_000
_MOST_STEPS = 10**9


class _Body(BaseModel):
    # Newer trainers may say more
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


class Metric(_Body):
    """One figure, as text."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_./-]+$")]
    value: Annotated[str, StringConstraints(max_length=64, pattern=r"^[ -~]*$")]


class TrainerStatus(_Body):
    """Kubeflow's TrainerStatus (KEP-2779), as the Hugging Face Trainer's callback sends it."""

    last_updated_time: Annotated[str, StringConstraints(max_length=64)] = ""
    progress_percentage: int | None = Field(default=None, ge=0, le=100)
    estimated_remaining_seconds: int | None = Field(default=None, ge=0, le=10**9)
    metrics: list[Metric] = Field(default=[], max_length=32)


class ProgressPost(_Body):
    """Body of a progress post."""

    trainer_status: TrainerStatus

    def report(self, received: dt.datetime) -> Report:
        """The report; steps are 0 where the trainer did not say them."""
        figures = {metric.name: metric.value for metric in self.trainer_status.metrics}
        return Report(
            step=_whole(figures.pop(CURRENT_STEP, "")),
            total_steps=_whole(figures.pop(TOTAL_STEPS, "")),
            metrics=figures,
            remaining_seconds=self.trainer_status.estimated_remaining_seconds,
            received=received,
        )


def _whole(text: str) -> int:
    # Trainers that print all figures alike write a million steps as 1e+06
    try:
        number = float(text)
    except ValueError:
        return 0
    return int(number) if 0 <= number <= _MOST_STEPS else 0


class Reports:
    """The newest report of each job. In memory only: a trainer posts again within seconds."""

    def __init__(self) -> None:
        self._newest: OrderedDict[Key, tuple[int, Report]] = OrderedDict()

    def put(self, key: Key, attempt: int, report: Report) -> bool:
        """Keep the report, unless a later attempt of the same job has reported already; whether it was kept."""
        known = self._newest.get(key)
        if known is not None and known[0] > attempt:
            return False
        self._newest[key] = (attempt, report)
        self._newest.move_to_end(key)
        if len(self._newest) > _REMEMBERED:
            self._newest.popitem(last=False)
        return True

    def newest(self, key: Key) -> Report | None:
        """The newest report of the job, if any came since the operator started."""
        known = self._newest.get(key)
        return known[1] if known else None

    def silence(self, key: Key, now: dt.datetime) -> float | None:
        """Seconds since the job's trainer was heard; None where it was not since the operator started."""
        report = self.newest(key)
        return None if report is None else (now - report.received).total_seconds()

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._newest.pop(key, None)
