"""Jobs that end badly: what is said, what is taken down, and that it stays so."""

from __future__ import annotations

import pytest

from finetune_operator.settings import Settings
from manifest_builders import WorldBuilder, a_job
from plan_answers import applied, condition, created, decide, says, told, types

LOGS = tuple(f"line {number}" for number in range(100))


def training_died(code: int | None, **more: object) -> WorldBuilder:
    return a_job().training().died("qwen-train-0", code, **more)  # type: ignore[arg-type]


PERMANENT = {
    64: "InvalidSpec",
    65: "InvalidData",
    66: "ModelUnusable",
    67: "SourceUnreachable",
    68: "ParityLost",
    70: "InternalError",
    71: "OutOfMemory",
    72: "StorageFull",
    73: "LossNotFinite",
}


@pytest.mark.parametrize(("code", "reason"), PERMANENT.items())
def test_an_exit_code_of_the_users_or_of_ours_fails_the_job_at_once(code: int, reason: str) -> None:
    planned = decide(training_died(code, message="what was wrong; what to do"))
    assert says(planned, "Failed") == ("True", reason)
    assert says(planned, "Trained") == ("False", reason)
    assert says(planned, "Complete") == ("False", reason)
    assert says(planned, "Stalled") == ("True", reason)
    assert says(planned, "Ready") == ("False", "Failed")
    assert "what was wrong; what to do" in condition(planned, "Ready").message
    assert "Reconciling" not in types(planned)
    assert created(planned) == []
    assert planned.status.completion_time is not None


def test_a_container_killed_for_its_memory_is_not_tried_again_unchanged() -> None:
    planned = decide(training_died(137, reason="OOMKilled"))
    assert says(planned, "Failed") == ("True", "OutOfMemory")
    assert "resources.memory" in condition(planned, "Failed").message


def test_a_failure_is_told_once_as_a_warning() -> None:
    assert told(decide(training_died(65))) == [("Warning", "InvalidData")]
    assert told(decide(a_job().training().failed())) == []


def test_the_failed_condition_carries_the_last_log_lines() -> None:
    planned = decide(training_died(70, message="a fault", logs=LOGS), Settings(log_lines=3))
    message = condition(planned, "Failed").message
    assert "a fault" in message
    assert message.endswith("line 97\nline 98\nline 99")
    assert "line 96" not in message
    assert "line 99" not in condition(planned, "Ready").message


def test_no_log_lines_are_shown_where_the_platform_wants_none() -> None:
    planned = decide(training_died(70, logs=LOGS), Settings(log_lines=0))
    assert "line 99" not in condition(planned, "Failed").message


def test_a_long_message_and_a_long_log_are_cut_so_that_the_end_of_the_log_stays() -> None:
    planned = decide(training_died(70, message="x" * 3900, logs=("y" * 3000, "the last words")))
    message = condition(planned, "Failed").message
    assert len(message) <= 4096
    assert message.endswith("the last words")


def test_a_container_without_last_words_is_described_by_its_end() -> None:
    planned = decide(training_died(70, logs=LOGS))
    assert "pod qwen-train-0-abcde (exit code 70, Error)" in condition(planned, "Failed").message


@pytest.mark.parametrize(("name", "stage"), [("qwen-prepare", "Prepared"), ("qwen-merge", "Merged")])
def test_prepare_and_merge_fail_the_job_with_the_reason_of_their_exit_code(name: str, stage: str) -> None:
    world = a_job().started() if stage == "Prepared" else a_job().trained()
    planned = decide(world.died(name, 65, message="chats.jsonl:3: no assistant turn"))
    assert says(planned, stage) == ("False", "InvalidData")
    assert says(planned, "Failed") == ("True", "InvalidData")
    assert "chats.jsonl:3" in condition(planned, "Failed").message


def test_a_prepare_job_that_kubernetes_gave_up_on_has_used_up_its_retries() -> None:
    planned = decide(a_job().started().died("qwen-prepare", 137))
    assert says(planned, "Failed") == ("True", "RetriesExhausted")
    assert "BackoffLimitExceeded" in condition(planned, "Failed").message


def test_what_the_kubelet_said_of_a_pod_is_passed_on() -> None:
    world = a_job().started().died("qwen-prepare", None, reason="Evicted", raw="The node was low on resource: memory")
    assert "low on resource: memory" in condition(decide(world), "Failed").message


def test_a_job_whose_pod_is_gone_says_so() -> None:
    planned = decide(a_job().started().vanished_pod("qwen-prepare"))
    assert "it was deleted, or its node was lost" in condition(planned, "Failed").message


@pytest.mark.parametrize(
    "world",
    [
        a_job().failed(),
        a_job().failed().prepared(),
        a_job().failed().running("qwen-prepare").claim("qwen-data"),
        a_job().with_spec(serving={"gpus": 0}).failed().merged().failed(),
        a_job().with_spec(suspend=True).failed(),
        a_job().failed().done("qwen-train-0").generation(9),
    ],
)
def test_a_failed_job_stays_failed_and_nothing_is_created_for_it(world: WorldBuilder) -> None:
    planned = decide(world)
    assert created(planned) == []
    assert applied(planned) == []
    assert planned.patch == ()
    assert says(planned, "Failed") == ("True", "InvalidData")
    assert says(planned, "Ready") == ("False", "Failed")


def test_a_failed_job_keeps_finished_jobs_for_their_logs_and_takes_down_the_rest() -> None:
    world = a_job().failed().done("qwen-prepare").running("qwen-train-0").child("Deployment", "qwen")
    planned = decide(world.child("Service", "qwen"))
    assert planned.delete == (("Job", "qwen-train-0"), ("Deployment", "qwen"), ("Service", "qwen"))


def test_what_is_being_deleted_is_not_deleted_again() -> None:
    assert decide(a_job().failed().running("qwen-train-0").being_deleted("Job", "qwen-train-0")).delete == ()
