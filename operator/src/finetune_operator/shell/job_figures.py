"""Gauges of the FineTuneJobs, read off where the figures live, so that they cannot drift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_operator.api import conditions
from finetune_operator.api.status import FineTuneJobStatus, Progress
from finetune_operator.plan.conditions import find
from finetune_operator.plan.figures import finite, share
from finetune_operator.shell.queue import Key

Silence = Callable[[Key], float | None]
"""Seconds since a job's trainer was last heard; None where it never was."""

_AT_REST = frozenset(
    {conditions.SERVING, conditions.COMPLETED, conditions.FAILED, conditions.SUSPENDED_BY_USER},
)
"""Stages that a job may stay in for ever. Jobs that rest get no series of their own, as there may be thousands."""


def _done(progress: Progress) -> float:
    return progress.step / progress.total_steps if progress.total_steps else 0.0


_FIGURES: tuple[tuple[str, str, Callable[[Progress], float | None]], ...] = (
    ("finetune_training_progress_ratio", "Share of the steps that a job in training has done.", _done),
    (
        "finetune_training_tokens_per_second",
        "Real (non-padding) tokens a second of a job in training.",
        lambda progress: finite(progress.tokens_per_second),
    ),
    (
        "finetune_training_limit_ratio",
        "Share of the GPUs' dense 16-bit limit that a job in training reaches; absent where that is not known.",
        lambda progress: share(progress.share_of_limit),
    ),
    (
        "finetune_training_data_wait_ratio",
        "Share of the time that a job in training waits for rows.",
        lambda progress: share(progress.data_wait_share),
    ),
)
"""Name, meaning and figure of what each job in training shows of its progress."""


def never_heard(_: Key) -> float | None:
    """No trainer was heard."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    stage: str
    since: float
    """On the clock's scale; counts from the operator's start where the job was in the stage before."""
    progress: Progress


class JobFigures(Collector):
    """What the operator knows of the jobs it looks after."""

    def __init__(self, queue_depth: Callable[[], int], silence: Silence, clock: Callable[[], float]) -> None:
        self._queue_depth = queue_depth
        self._silence = silence
        self._clock = clock
        self._seen: dict[Key, _Seen] = {}

    def observe(self, key: Key, status: FineTuneJobStatus) -> None:
        """The job's status as it stands now."""
        ready, known = find(status.conditions, conditions.READY), self._seen.get(key)
        stage = ready.reason if ready else conditions.PENDING
        since = known.since if known and known.stage == stage else self._clock()
        self._seen[key] = _Seen(stage=stage, since=since, progress=status.progress or Progress())

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._seen.pop(key, None)

    def collect(self) -> Iterable[Metric]:
        """Called by Prometheus' client for each scrape."""
        yield GaugeMetricFamily("finetune_queue_depth", "Jobs that wait for a worker.", value=self._queue_depth())
        yield self._jobs()
        yield self._stage_seconds()
        yield from self._progress()
        yield self._silences()

    def _jobs(self) -> Metric:
        jobs = GaugeMetricFamily(
            "finetune_jobs", "FineTuneJobs, by the stage that Ready shows.", labels=["namespace", "stage"]
        )
        counts = Counter((key.namespace, seen.stage) for key, seen in self._seen.items())
        for labels, count in sorted(counts.items()):
            jobs.add_metric(labels, count)
        return jobs

    def _stage_seconds(self) -> Metric:
        family = GaugeMetricFamily(
            "finetune_job_stage_seconds",
            "How long a job that is under way has been in its stage, as far as this operator has seen.",
            labels=["namespace", "name", "stage"],
        )
        for key, seen in self._by_name():
            if seen.stage not in _AT_REST:
                family.add_metric([key.namespace, key.name, seen.stage], self._clock() - seen.since)
        return family

    def _progress(self) -> Iterator[Metric]:
        for name, words, figure in _FIGURES:
            family = GaugeMetricFamily(name, words, labels=["namespace", "name"])
            for key, seen in self._training():
                value = figure(seen.progress)
                if value is not None:
                    family.add_metric([key.namespace, key.name], value)
            yield family

    def _silences(self) -> Metric:
        family = GaugeMetricFamily(
            "finetune_training_silence_seconds",
            "Seconds since a job in training reported progress; absent until it has.",
            labels=["namespace", "name"],
        )
        for key, _ in self._training():
            silence = self._silence(key)
            if silence is not None:
                family.add_metric([key.namespace, key.name], silence)
        return family

    def _training(self) -> Iterator[tuple[Key, _Seen]]:
        return ((key, seen) for key, seen in self._by_name() if seen.stage == conditions.TRAINING)

    def _by_name(self) -> list[tuple[Key, _Seen]]:
        return sorted(self._seen.items(), key=lambda entry: entry[0])
