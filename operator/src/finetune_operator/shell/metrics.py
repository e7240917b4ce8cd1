"""Figures of the operator, for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_operator.api import conditions
from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.shell.queue import Key

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """All figures, in a registry of their own so that tests can hold several operators."""

    def __init__(self, queue_depth: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._stages: dict[Key, str] = {}
        self.reconciles = CounterMetric(
            "finetune_reconciles",
            "Reconciles, by outcome: done, conflict, refused or error.",
            ["outcome"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "finetune_reconcile_seconds", "How long a reconcile takes.", buckets=_SECONDS, registry=self.registry
        )
        self.posts = CounterMetric(
            "finetune_progress_posts",
            "Progress posts of trainers, by the HTTP status of the answer.",
            ["status"],
            registry=self.registry,
        )
        self.registry.register(_Gauges(queue_depth, self._stages))

    def observe(self, key: Key, status: FineTuneJobStatus) -> None:
        """Count the job under its stage."""
        ready = next((condition for condition in status.conditions if condition.type == conditions.READY), None)
        self._stages[key] = ready.reason if ready else conditions.PENDING

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._stages.pop(key, None)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    """Gauges that are read off where the figures live, so that they cannot drift."""

    def __init__(self, queue_depth: Callable[[], int], stages: dict[Key, str]) -> None:
        self._queue_depth = queue_depth
        self._stages = stages

    def collect(self) -> Iterable[Metric]:
        """Called by Prometheus' client for each scrape."""
        yield GaugeMetricFamily("finetune_queue_depth", "Jobs that wait for a worker.", value=self._queue_depth())
        jobs = GaugeMetricFamily("finetune_jobs", "FineTuneJobs, by the stage that Ready shows.", labels=["stage"])
        for stage, count in sorted(Counter(self._stages.values()).items()):
            jobs.add_metric([stage], count)
        yield jobs
