"""Figures of the operator, for Prometheus. docs/monitoring.md lists them; a test compares the two."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client import Counter as CounterMetric

from finetune_operator.api import conditions
from finetune_operator.api.status import Attempt, ConditionStatus, FineTuneJobStatus
from finetune_operator.plan.conditions import find
from finetune_operator.shell.job_figures import JobFigures, Silence, never_heard
from finetune_operator.shell.queue import Key

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_OUTCOMES = ("done", "conflict", "refused", "error")
_TRIED_AGAIN = (conditions.INFRASTRUCTURE, conditions.NO_PROGRESS, conditions.PREEMPTED)


class Metrics:
    """All figures, in a registry of their own so that tests can hold several operators."""

    def __init__(
        self,
        queue_depth: Callable[[], int],
        silence: Silence = never_heard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Info("finetune_operator", "Version of the operator.", registry=self.registry).info(
            {"version": version("finetune-operator")}
        )
        self._jobs = JobFigures(queue_depth, silence, clock)
        self.registry.register(self._jobs)
        self.reconciles = self._counter(
            "finetune_reconciles", "Reconciles, by outcome: done, conflict, refused or error.", "outcome"
        )
        self.seconds = Histogram(
            "finetune_reconcile_seconds", "How long a reconcile takes.", buckets=_SECONDS, registry=self.registry
        )
        self.posts = self._counter(
            "finetune_progress_posts", "Progress posts of trainers, by the HTTP status of the answer.", "status"
        )
        self._jobs_ended = self._counter(
            "finetune_jobs_ended", "FineTuneJobs that came to their end: result Complete or Failed.", "result", "reason"
        )
        self._attempts_ended = self._counter(
            "finetune_attempts_ended",
            "Training attempts that failed, by the reason that status.attempts shows.",
            "reason",
        )
        self._gpu_seconds = self._counter(
            "finetune_failed_attempt_gpu_seconds",
            "GPUs times seconds that the pods of failed attempts ran. What they had saved by then is not lost.",
            "reason",
        )
        self._start_at_zero()

    def observe(self, key: Key, before: FineTuneJobStatus, after: FineTuneJobStatus, gpus: int = 0) -> None:
        """Take a job's status over, once it stands. ``before`` is what it was, ``gpus`` what an attempt holds in all."""
        self._jobs.observe(key, after)
        for attempt in _new_attempts(before, after):
            reason = attempt.reason or conditions.INFRASTRUCTURE
            self._attempts_ended.labels(reason).inc()
            self._gpu_seconds.labels(reason).inc((attempt.seconds or 0) * gpus)
        for result in (conditions.COMPLETE, conditions.FAILED):
            ended = find(after.conditions, result)
            if ended and _is_true(after, result) and not _is_true(before, result):
                self._jobs_ended.labels(result, ended.reason).inc()

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._jobs.forget(key)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str, *labels: str) -> CounterMetric:
        return CounterMetric(name, what, labels, registry=self.registry)

    def _start_at_zero(self) -> None:
        # A series that begins with its first event has no increase for Prometheus.
        for outcome in _OUTCOMES:
            self.reconciles.labels(outcome)
        for reason in _TRIED_AGAIN:
            self._attempts_ended.labels(reason)
            self._gpu_seconds.labels(reason)
        self._jobs_ended.labels(conditions.COMPLETE, conditions.SUCCEEDED)


def _new_attempts(before: FineTuneJobStatus, after: FineTuneJobStatus) -> list[Attempt]:
    known = {attempt.number for attempt in before.attempts}
    return [attempt for attempt in after.attempts if attempt.number not in known]


def _is_true(status: FineTuneJobStatus, type_: str) -> bool:
    condition = find(status.conditions, type_)
    return condition is not None and condition.status is ConditionStatus.TRUE
