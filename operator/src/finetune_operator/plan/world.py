"""The observed world with the questions that several policies ask of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

from finetune_operator.api import conditions, names
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.status import Condition, ConditionStatus, FineTuneJobStatus
from finetune_operator.build.types import JobView, Manifest
from finetune_operator.plan import instants
from finetune_operator.plan.conditions import find
from finetune_operator.plan.types import Observed
from finetune_operator.settings import Settings


@dataclass(frozen=True, slots=True)
class World:
    """What was observed, and the settings."""

    observed: Observed
    settings: Settings

    @property
    def job(self) -> JobView:
        """The FineTuneJob."""
        return self.observed.job

    @property
    def spec(self) -> FineTuneJobSpec:
        """Its desired state."""
        return self.observed.job.spec

    @property
    def status(self) -> FineTuneJobStatus:
        """Its status as last written."""
        return self.observed.job.status

    @property
    def now(self) -> dt.datetime:
        """When the world was observed."""
        return self.observed.now

    def condition(self, type_: str) -> Condition | None:
        """A condition as last written."""
        return find(self.status.conditions, type_)

    def is_true(self, type_: str) -> bool:
        """Whether a condition was written as True."""
        condition = self.condition(type_)
        return condition is not None and condition.status is ConditionStatus.TRUE

    def reason(self, type_: str) -> str | None:
        """Reason of a condition as last written."""
        condition = self.condition(type_)
        return condition.reason if condition else None

    def own(self, kind: str, name: str) -> Manifest | None:
        """A child of that name, if it exists and belongs to the job."""
        child = self.observed.children.get((kind, name))
        return child if child is not None and self.owns(child) else None

    def owns(self, child: Manifest) -> bool:
        """Whether the job is the child's controller."""
        owner = controller(child)
        return owner is not None and owner.get("uid") == self.job.uid

    def own_jobs(self) -> Iterator[tuple[str, Manifest]]:
        """Jobs of all stages and attempts, by name."""
        for (kind, name), child in self.observed.children.items():
            if kind == "Job" and self.owns(child):
                yield name, child

    @property
    def suspended(self) -> bool:
        """Whether the user wants no pods now. A job that is done and serves nothing has none to stop."""
        done = self.is_true(conditions.COMPLETE) and not self.spec.wants_serving
        return self.spec.suspend and not done

    @property
    def attempt(self) -> int:
        """Number of the current or last training attempt."""
        return self.status.attempt or 0

    @property
    def train_name(self) -> str:
        """Name of the current attempt's Job."""
        return names.train(self.job.name, self.attempt)

    @property
    def started(self) -> dt.datetime:
        """When the operator first saw the job."""
        return instants.from_text(self.status.start_time) if self.status.start_time else self.now


def controller(child: Manifest) -> Manifest | None:
    """The owner reference of the child's controller."""
    references = child["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)
