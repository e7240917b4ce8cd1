"""Fluent builders of observed worlds, for tests of `plan` and `build`."""

from __future__ import annotations

import datetime as dt
from typing import Any, Self

from finetune_operator.api import names
from finetune_operator.api.base import API_VERSION, KIND
from finetune_operator.api.outcome import TerminationMessage
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.status import Condition, ConditionStatus, FineTuneJobStatus
from finetune_operator.plan import instants
from finetune_operator.plan.types import JobView, Manifest, Observed, PodEnd, Report

NOW = dt.datetime(2026, 11, 21, 12, 0, 0, tzinfo=dt.UTC)
UID = "11111111-2222-3333-4444-555555555555"
OTHER_UID = "99999999-8888-7777-6666-555555555555"
NAMESPACE = "team"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\n"


def spec_of(**fields: Any) -> FineTuneJobSpec:
    """A small valid spec, with fields in the API's own (camelCase) names set or replaced."""
    base = {
        "model": {"source": "hf://org/base"},
        "datasets": [{"source": "hf://org/chats"}],
        "method": "LoRA",
    }
    return FineTuneJobSpec.model_validate(base | fields)


class WorldBuilder:
    """An observed world, put together sentence by sentence."""

    def __init__(self, name: str = "qwen") -> None:
        self._name = name
        self._spec: dict[str, Any] = {}
        self._generation = 1
        self._status: dict[str, Any] = {}
        self._conditions: dict[str, Condition] = {}
        self._marks: dict[str, dict[str, str]] = {"labels": {}, "annotations": {}}
        self._children: dict[tuple[str, str], Manifest] = {}
        self._ends: dict[str, PodEnd] = {}
        self._waiting: dict[str, str] = {}
        self._training_pods: tuple[str, ...] = ()
        self._report: Report | None = None
        self._now = NOW

    def with_spec(self, **fields: Any) -> Self:
        self._spec |= fields
        return self

    def generation(self, number: int) -> Self:
        self._generation = number
        return self

    def with_labels(self, labels: dict[str, str]) -> Self:
        self._marks["labels"] |= labels
        return self

    def with_annotations(self, annotations: dict[str, str]) -> Self:
        self._marks["annotations"] |= annotations
        return self

    def at(self, seconds: float) -> Self:
        """So many seconds after NOW."""
        self._now = NOW + dt.timedelta(seconds=seconds)
        return self

    def with_status(self, **fields: Any) -> Self:
        self._status |= fields
        return self

    def condition(self, type_: str, status: str, reason: str, message: str = "") -> Self:
        self._conditions[type_] = Condition(
            type=type_,
            status=ConditionStatus(status),
            reason=reason,
            message=message,
            observed_generation=1,
            last_transition_time=instants.to_text(NOW),
        )
        return self

    def started(self) -> Self:
        return self.with_status(start_time=instants.to_text(NOW))

    def prepared(self) -> Self:
        return self.started().condition("Prepared", "True", "Succeeded")

    def training(self, attempt: int = 0) -> Self:
        return self.prepared().with_status(attempt=attempt).condition("Trained", "Unknown", "Running")

    def trained(self, attempt: int = 0) -> Self:
        return self.prepared().with_status(attempt=attempt).condition("Trained", "True", "Succeeded")

    def merged(self) -> Self:
        return self.trained().condition("Merged", "True", "Succeeded")

    def complete(self) -> Self:
        finished = self.with_status(completion_time=instants.to_text(NOW))
        return finished.condition("Complete", "True", "Succeeded").condition("Failed", "False", "Running")

    def failed(self, reason: str = "InvalidData", message: str = "rows are wrong") -> Self:
        finished = self.started().with_status(completion_time=instants.to_text(NOW))
        return finished.condition("Failed", "True", reason, message).condition("Ready", "False", "Failed", message)

    def child(self, kind: str, name: str, *, owner: str | None = UID, **fields: Any) -> Self:
        self._children[kind, name] = live(kind, name, **({"owner": owner, "job": self._name} | fields))
        return self

    def claim(self, name: str) -> Self:
        """A claim of the user's."""
        self._children["PersistentVolumeClaim", name] = {"kind": "PersistentVolumeClaim", "metadata": {"name": name}}
        return self

    def running(self, name: str) -> Self:
        return self.child("Job", name, spec={"suspend": False}, status={"active": 1})

    def suspended(self, name: str) -> Self:
        return self.child("Job", name, spec={"suspend": True}, status={})

    def done(self, name: str, **figures: str | float) -> Self:
        message = TerminationMessage("Succeeded", "", figures).encode().decode()
        self._ends[name] = PodEnd(pod=f"{name}-abcde", exit_code=0, message=message, reason="Completed")
        return self.child("Job", name, spec={}, status={"succeeded": 1, "conditions": [_true("Complete")]})

    def died(
        self,
        name: str,
        code: int | None = 1,
        *,
        message: str = "",
        raw: str = "",
        reason: str = "Error",
        logs: tuple[str, ...] = (),
        at: float = 0,
    ) -> Self:
        """The Job failed, and its pod left this behind; ``raw`` is not one of our images' termination messages."""
        words = TerminationMessage("Reason", message).encode().decode() if message else raw
        self._ends[name] = PodEnd(pod=f"{name}-abcde", exit_code=code, message=words, reason=reason, logs=logs)
        return self.vanished_pod(name, at=at)

    def vanished_pod(self, name: str, at: float = 0, reason: str = "BackoffLimitExceeded", message: str = "") -> Self:
        """The Job failed, and no pod is left."""
        failed = _true("Failed", reason=reason, at=at) | {"message": message}
        return self.child("Job", name, spec={}, status={"failed": 1, "conditions": [failed]})

    def without(self, kind: str, name: str) -> Self:
        del self._children[kind, name]
        return self

    def being_deleted(self, kind: str, name: str) -> Self:
        self._children[kind, name]["metadata"]["deletionTimestamp"] = instants.to_text(NOW)
        return self

    def waits(self, name: str, why: str) -> Self:
        self._waiting[name] = why
        return self

    def training_pod(self, name: str) -> Self:
        """A training pod that has not ended, though its Job may be gone."""
        self._training_pods += (name,)
        return self

    def reports(self, step: int, total: int, *, at: float = 0, remaining: int | None = None, **metrics: str) -> Self:
        received = NOW + dt.timedelta(seconds=at)
        self._report = Report(
            step=step, total_steps=total, metrics=metrics, remaining_seconds=remaining, received=received
        )
        return self

    def status(self) -> FineTuneJobStatus:
        return FineTuneJobStatus(conditions=list(self._conditions.values()), **self._status)

    def job(self) -> JobView:
        return JobView(
            name=self._name,
            namespace=NAMESPACE,
            uid=UID,
            generation=self._generation,
            created=NOW,
            spec=spec_of(**self._spec),
            status=self.status(),
            labels=self._marks["labels"],
            annotations=self._marks["annotations"],
        )

    def observed(self) -> Observed:
        return Observed(
            job=self.job(),
            children=self._children,
            ends=self._ends,
            waiting=self._waiting,
            training_pods=self._training_pods,
            report=self._report,
            certificate=CERTIFICATE,
            operator_namespace="operator-system",
            now=self._now,
        )


def a_job(name: str = "qwen") -> WorldBuilder:
    """A world that holds nothing but a new FineTuneJob."""
    return WorldBuilder(name)


def live(kind: str, name: str, *, owner: str | None = UID, job: str = "qwen", **fields: Any) -> Manifest:
    """An object as the API server returns it, owned by the FineTuneJob, by another (OTHER_UID) or by nobody (None)."""
    reference = {"apiVersion": API_VERSION, "kind": KIND, "name": job, "uid": owner, "controller": True}
    metadata = {
        "name": name,
        "namespace": NAMESPACE,
        "labels": names.labels(job, "any"),
        "ownerReferences": [reference] if owner else [],
    }
    return {"kind": kind, "metadata": metadata, **fields}


def _true(type_: str, reason: str = "", at: float = 0) -> Manifest:
    instant = instants.to_text(NOW + dt.timedelta(seconds=at))
    return {"type": type_, "status": "True", "reason": reason, "lastTransitionTime": instant}
