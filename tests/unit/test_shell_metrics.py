"""The figures for Prometheus: what they count, and what they do not count twice."""

import datetime as dt

import pytest

from finetune_operator.api.status import Attempt, Condition, ConditionStatus, FineTuneJobStatus, Progress
from finetune_operator.plan.types import Report
from finetune_operator.shell.metrics import Metrics
from finetune_operator.shell.podfacts import deciding_end
from finetune_operator.shell.queue import Key
from finetune_operator.shell.reports import Reports

KEY = Key("team", "a")
NEW = FineTuneJobStatus()
NOW = dt.datetime(2026, 11, 22, 3, 0, tzinfo=dt.UTC)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def condition(type_: str, status: ConditionStatus, reason: str) -> Condition:
    return Condition(type=type_, status=status, reason=reason, last_transition_time="2026-11-22T03:00:00Z")


def in_stage(stage: str, progress: Progress | None = None) -> FineTuneJobStatus:
    ready = condition("Ready", ConditionStatus.FALSE, stage)
    return FineTuneJobStatus(conditions=[ready], progress=progress)


def shown(metrics: Metrics, name: str) -> list[str]:
    """The lines of one metric."""
    return [line for line in metrics.text().decode().splitlines() if line.startswith((f"{name}{{", f"{name} "))]


def test_jobs_are_counted_by_namespace_and_the_stage_that_people_see() -> None:
    metrics = Metrics(lambda: 3)
    for name, stage in (("a", "Training"), ("b", "Training"), ("c", "Serving"), ("d", "Failed")):
        metrics.observe(Key("team", name), NEW, in_stage(stage))
    metrics.observe(Key("other", "e"), NEW, FineTuneJobStatus())
    metrics.forget(Key("team", "d"))
    metrics.observe(Key("team", "c"), NEW, in_stage("Completed"))
    assert shown(metrics, "finetune_jobs") == [
        'finetune_jobs{namespace="other",stage="Pending"} 1.0',
        'finetune_jobs{namespace="team",stage="Completed"} 1.0',
        'finetune_jobs{namespace="team",stage="Training"} 2.0',
    ]
    assert shown(metrics, "finetune_queue_depth") == ["finetune_queue_depth 3.0"]


def test_a_job_under_way_shows_how_long_it_has_been_in_its_stage() -> None:
    clock = Clock()
    metrics = Metrics(lambda: 0, clock=clock)
    for clock.seconds, stage in ((0.0, "Preparing"), (5.0, "Queued"), (9.0, "Queued")):
        metrics.observe(KEY, NEW, in_stage(stage))
    clock.seconds = 65.0
    assert shown(metrics, "finetune_job_stage_seconds") == [
        'finetune_job_stage_seconds{name="a",namespace="team",stage="Queued"} 60.0'
    ]


@pytest.mark.parametrize("stage", ["Serving", "Completed", "Failed", "Suspended"])
def test_a_job_at_rest_has_no_series_of_its_own(stage: str) -> None:
    metrics = Metrics(lambda: 0, lambda _: 1.0)
    metrics.observe(KEY, NEW, in_stage("Training"))
    metrics.observe(KEY, NEW, in_stage(stage))
    assert 'name="a"' not in metrics.text().decode()


def test_a_job_in_training_shows_its_share_and_how_long_its_trainer_has_been_silent() -> None:
    reports = Reports()
    metrics = Metrics(lambda: 0, lambda key: reports.silence(key, NOW + dt.timedelta(seconds=90)))
    metrics.observe(KEY, NEW, in_stage("Training", Progress(step=30, total_steps=120)))
    assert shown(metrics, "finetune_training_silence_seconds") == []
    reports.put(KEY, 0, Report(step=30, total_steps=120, metrics={}, remaining_seconds=None, received=NOW))
    labels = 'name="a",namespace="team"'
    assert shown(metrics, "finetune_training_silence_seconds") == [
        f"finetune_training_silence_seconds{{{labels}}} 90.0"
    ]
    assert shown(metrics, "finetune_training_progress_ratio") == [f"finetune_training_progress_ratio{{{labels}}} 0.25"]


def test_a_job_in_training_shows_its_speed_and_nothing_for_what_its_trainer_did_not_say_in_numbers() -> None:
    metrics = Metrics(lambda: 0)
    said = Progress(tokens_per_second="17221", share_of_limit="49.1%", data_wait_share="0.02%")
    metrics.observe(KEY, NEW, in_stage("Training", said))
    odd = Progress(tokens_per_second="inf", share_of_limit="much", data_wait_share="nan%")
    for name, progress in (("odd", odd), ("silent", Progress()), ("none", None)):
        metrics.observe(Key("team", name), NEW, in_stage("Training", progress))
    labels = 'name="a",namespace="team"'
    figures = {"tokens_per_second": "17221.0", "limit_ratio": "0.491", "data_wait_ratio": "0.0002"}
    for name, value in figures.items():
        assert shown(metrics, f"finetune_training_{name}") == [f"finetune_training_{name}{{{labels}}} {value}"]


def test_a_failed_attempt_is_counted_once_with_the_gpu_time_that_it_took() -> None:
    metrics = Metrics(lambda: 0)
    ended = FineTuneJobStatus(attempts=[Attempt(number=0, reason="Infrastructure", seconds=100)])
    metrics.observe(KEY, NEW, ended, gpus=16)
    metrics.observe(KEY, ended, ended, gpus=16)
    further = ended.model_copy(update={"attempts": [*ended.attempts, Attempt(number=1, reason="Infrastructure")]})
    metrics.observe(KEY, ended, further, gpus=16)
    count, seconds = "finetune_attempts_ended_total", "finetune_failed_attempt_gpu_seconds_total"
    assert f'{count}{{reason="Infrastructure"}} 2.0' in shown(metrics, count)
    assert f'{seconds}{{reason="Infrastructure"}} 1600.0' in shown(metrics, seconds)


@pytest.mark.parametrize(
    ("result", "reason"), [("Failed", "InvalidData"), ("Complete", "Succeeded")], ids=["failed", "complete"]
)
def test_the_end_of_a_job_is_counted_once_and_not_again_by_an_operator_that_starts_later(
    result: str, reason: str
) -> None:
    metrics = Metrics(lambda: 0)
    ended = FineTuneJobStatus(conditions=[condition(result, ConditionStatus.TRUE, reason)])
    metrics.observe(Key("team", "old"), ended, ended)
    metrics.observe(KEY, NEW, ended)
    metrics.observe(KEY, ended, ended)
    line = f'finetune_jobs_ended_total{{reason="{reason}",result="{result}"}} 1.0'
    assert line in shown(metrics, "finetune_jobs_ended_total")


def test_counters_that_alerts_rely_on_begin_at_zero() -> None:
    metrics = Metrics(lambda: 0)
    assert 'finetune_reconciles_total{outcome="error"} 0.0' in shown(metrics, "finetune_reconciles_total")
    assert 'finetune_attempts_ended_total{reason="NoProgress"} 0.0' in shown(metrics, "finetune_attempts_ended_total")


@pytest.mark.parametrize(("started", "seconds"), [("2026-11-22T03:00:00Z", 75), (None, None)], ids=["said", "not said"])
def test_the_time_that_a_pod_ran_is_what_the_kubelet_said(started: str | None, seconds: int | None) -> None:
    ended = {"exitCode": 1, "startedAt": started, "finishedAt": "2026-11-22T03:01:15Z"}
    status = {"phase": "Failed", "containerStatuses": [{"name": "train", "state": {"terminated": ended}}]}
    end = deciding_end([{"metadata": {"name": "p", "uid": "u"}, "status": status}])
    assert end is not None
    assert end.seconds == seconds
