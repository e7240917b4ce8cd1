"""What people want to know of a FineTuneJob, read from the object as the API server gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.api import conditions
from finetune_operator.api.status import Condition, ConditionStatus, FineTuneJobStatus


@dataclass(frozen=True, slots=True)
class ShownJob:
    """One FineTuneJob. The spec stays a plain mapping: a newer operator's fields must not hide the job."""

    name: str
    namespace: str
    generation: int
    created: str
    spec: Mapping[str, Any]
    status: FineTuneJobStatus

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> ShownJob:
        """Take the API server's object apart."""
        metadata = manifest["metadata"]
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            generation=metadata.get("generation", 0),
            created=metadata["creationTimestamp"],
            spec=manifest["spec"],
            status=FineTuneJobStatus.model_validate(manifest.get("status") or {}),
        )

    def condition(self, kind: str) -> Condition | None:
        """The condition of a type, if there is one."""
        return next((condition for condition in self.status.conditions if condition.type == kind), None)

    def holds(self, kind: str) -> bool:
        """Whether a condition is True, and that of the spec as it stands now."""
        condition = self.condition(kind)
        if condition is None or condition.status is not ConditionStatus.TRUE:
            return False
        return condition.observed_generation is None or condition.observed_generation >= self.generation

    @property
    def stage(self) -> str:
        """The word in the STATUS column."""
        ready = self.condition(conditions.READY)
        return ready.reason if ready else conditions.PENDING

    @property
    def method(self) -> str:
        return str(self.spec.get("method", ""))

    @property
    def model(self) -> str:
        return str(self.spec.get("model", {}).get("source", ""))

    @property
    def is_suspended(self) -> bool:
        """Whether the spec asks for no pods."""
        return bool(self.spec.get("suspend"))
