"""Training attempts: what is tried again, how often, how soon."""

from __future__ import annotations

import pytest

from finetune_operator.api.status import Attempt
from finetune_operator.plan import retry
from manifest_builders import WorldBuilder, a_job
from plan_answers import condition, created, decide, says, told


def attempts(*reasons: str, first: int = 0, finished: str = "2026-11-21T12:00:00Z") -> list[Attempt]:
    return [
        Attempt(number=first + number, reason=reason, finished=finished, exit_code=1)
        for number, reason in enumerate(reasons)
    ]


def retrying(*reasons: str) -> WorldBuilder:
    """A job whose attempts ended so, the last of them at NOW."""
    ended = attempts(*reasons)
    world = a_job().prepared().with_status(attempt=len(ended), attempts=ended)
    return world.condition("Trained", "Unknown", "Retrying", "training attempt ended")


@pytest.mark.parametrize(
    ("code", "why", "reason"),
    [
        (1, "Error", "Infrastructure"),
        (137, "Error", "Infrastructure"),
        (139, "Error", "Infrastructure"),
        (None, "", "Infrastructure"),
        (74, "Error", "NoProgress"),
        (75, "Error", "Preempted"),
        (137, "Evicted", "Preempted"),
        (None, "DeletionByTaintManager", "Preempted"),
    ],
)
def test_what_was_not_the_users_fault_is_tried_again(code: int | None, why: str, reason: str) -> None:
    planned = decide(a_job().training().died("qwen-train-0", code, reason=why))
    assert planned.status.attempt == 1
    assert [(ended.number, ended.reason) for ended in planned.status.attempts] == [(0, reason)]
    assert planned.status.attempts[0].exit_code == code
    assert says(planned, "Trained") == ("Unknown", "Retrying")
    assert says(planned, "Ready") == ("False", "Retrying")
    assert told(planned) == [("Warning", "Retrying")]
    assert created(planned) == []
    assert planned.requeue_after == 10


def test_a_failed_job_whose_pod_is_gone_is_tried_again() -> None:
    planned = decide(a_job().training().vanished_pod("qwen-train-0"))
    assert planned.status.attempt == 1
    assert "no pod is left" in condition(planned, "Ready").message


def test_a_drain_that_took_the_operator_along_is_no_strike_against_the_job() -> None:
    words = "Pod team-a/qwen-train-0-x2v has condition DisruptionTarget matching FailJob rule at index 0"
    world = a_job().training().vanished_pod("qwen-train-0", reason="PodFailurePolicy", message=words)
    [ended] = decide(world).status.attempts
    assert ended.reason == "Preempted"
    assert words in (ended.message or "")


def test_a_training_job_that_was_taken_away_is_followed_by_the_next_attempt() -> None:
    planned = decide(a_job().training(attempt=2))
    assert planned.status.attempt == 3
    assert planned.status.attempts[-1].reason == "Infrastructure"
    assert created(planned) == []


def test_a_job_whose_creation_was_refused_is_not_taken_for_lost() -> None:
    planned = decide(a_job().prepared().with_status(attempt=0).condition("Trained", "Unknown", "Waiting"))
    assert created(planned) == [("Job", "qwen-train-0")]
    assert planned.status.attempts == []


def test_the_next_attempt_waits_for_its_pause() -> None:
    planned = decide(retrying("Infrastructure").at(4))
    assert created(planned) == []
    assert planned.requeue_after == 6
    assert says(planned, "Ready") == ("False", "Retrying")


def test_after_its_pause_the_next_attempt_is_created() -> None:
    planned = decide(retrying("Infrastructure").at(10))
    assert created(planned) == [("Job", "qwen-train-1")]


def test_the_pause_counts_from_the_end_of_the_pod_not_from_when_the_operator_came_back() -> None:
    planned = decide(a_job().training().died("qwen-train-0", 1, at=-3600))
    assert planned.status.attempts[0].finished == "2026-11-21T11:00:00Z"


def test_no_attempt_starts_while_a_pod_of_an_earlier_one_is_still_ending() -> None:
    observed = retrying("Infrastructure").training_pod("qwen-train-0-x").at(60)
    planned = decide(observed)
    assert created(planned) == []
    assert "qwen-train-0-x" in condition(planned, "Ready").message


def test_retries_are_used_up_after_max_retries() -> None:
    world = (
        a_job()
        .with_spec(maxRetries=2)
        .training(attempt=2)
        .with_status(attempts=attempts("NoProgress", "Infrastructure"))
    )
    planned = decide(world.died("qwen-train-2", 1))
    assert says(planned, "Failed") == ("True", "RetriesExhausted")
    assert says(planned, "Trained") == ("False", "RetriesExhausted")
    assert planned.status.attempt == 2
    assert len(planned.status.attempts) == 3


def test_no_retry_is_made_where_none_is_wanted() -> None:
    planned = decide(a_job().with_spec(maxRetries=0).training().died("qwen-train-0", 1))
    assert says(planned, "Failed") == ("True", "RetriesExhausted")


def test_being_preempted_is_no_strike() -> None:
    ended = attempts(*["Preempted"] * 16, first=4)
    world = a_job().with_spec(maxRetries=0).training(attempt=20).with_status(attempts=ended)
    planned = decide(world.died("qwen-train-20", 75))
    assert says(planned, "Ready") == ("False", "Retrying")
    assert planned.status.attempt == 21
    assert [ended.number for ended in planned.status.attempts] == list(range(5, 21))


@pytest.mark.parametrize(
    ("reasons", "first", "strikes"),
    [
        (["Infrastructure"], 0, 1),
        (["Infrastructure", "Preempted", "NoProgress"], 0, 2),
        (["Infrastructure"] * 16, 0, 16),
        (["Infrastructure"] * 16, 30, 46),
        (["Preempted"] + ["Infrastructure"] * 15, 30, 15),
    ],
)
def test_strikes_are_counted_beyond_what_the_status_remembers(reasons: list[str], first: int, strikes: int) -> None:
    assert retry.strikes(attempts(*reasons, first=first)) == strikes


@pytest.mark.parametrize(
    ("reasons", "seconds"),
    [
        (["Infrastructure"], 10),
        (["Infrastructure"] * 2, 20),
        (["Infrastructure"] * 3, 40),
        (["Infrastructure"] * 16, 600),
        (["Infrastructure", "Infrastructure", "Preempted"], 10),
        (["Preempted", "Infrastructure", "NoProgress"], 20),
    ],
)
def test_the_pause_doubles_with_each_failure_in_a_row(reasons: list[str], seconds: float) -> None:
    assert retry.pause(attempts(*reasons), 10) == seconds


def test_a_job_that_is_being_deleted_is_waited_for() -> None:
    planned = decide(a_job().training().running("qwen-train-0").being_deleted("Job", "qwen-train-0"))
    assert planned.status.attempt == 0
    assert created(planned) == []
    assert planned.requeue_after == 5
