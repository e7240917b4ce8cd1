"""The way of a job on which nothing goes wrong."""

from __future__ import annotations

import pytest

from finetune_operator.api.status import DatasetStatus, Results, ServingStatus
from manifest_builders import WorldBuilder, a_job
from plan_answers import applied, condition, created, decide, says, told, types

SERVING = {"gpus": 0}


def test_a_new_job_gets_its_claim_its_run_config_and_the_prepare_job() -> None:
    planned = decide(a_job())
    assert created(planned) == [("PersistentVolumeClaim", "qwen-data"), ("Job", "qwen-prepare")]
    assert applied(planned) == [("ConfigMap", "qwen-run")]
    assert says(planned, "Ready") == ("False", "Preparing")
    assert told(planned) == [("Normal", "Preparing")]


def test_every_condition_is_there_from_the_first_pass() -> None:
    planned = decide(a_job())
    expected = ["Ready", "Prepared", "Trained", "Merged", "Served", "Complete", "Failed", "Reconciling"]
    assert types(planned) == expected
    assert all(entry.observed_generation == 1 for entry in planned.status.conditions)
    assert planned.status.start_time == "2026-11-21T12:00:00Z"
    assert planned.status.volume == "qwen-data"


def test_a_claim_of_the_users_is_used_and_none_is_made() -> None:
    planned = decide(a_job().with_spec(storage={"claim": "shared"}).claim("shared"))
    assert created(planned) == [("Job", "qwen-prepare")]
    assert planned.status.volume == "shared/qwen"


def test_a_claim_that_is_there_already_is_not_made_again() -> None:
    planned = decide(a_job().child("PersistentVolumeClaim", "qwen-data"))
    assert created(planned) == [("Job", "qwen-prepare")]


def test_a_running_prepare_job_is_only_watched() -> None:
    planned = decide(a_job().started().child("PersistentVolumeClaim", "qwen-data").running("qwen-prepare"))
    assert created(planned) == []
    assert says(planned, "Prepared") == ("Unknown", "Running")


def test_a_finished_prepare_job_is_written_down_before_training_is_begun() -> None:
    world = a_job().started().child("PersistentVolumeClaim", "qwen-data")
    planned = decide(world.done("qwen-prepare", rows=100, dropped=2, tokens=5000, trainedTokens=1200, seconds=3.5))
    assert says(planned, "Prepared") == ("True", "Succeeded")
    assert planned.status.dataset == DatasetStatus(rows=100, dropped=2, tokens=5000, trained_tokens=1200)
    assert created(planned) == []
    assert planned.requeue_after is not None
    assert planned.requeue_after < 1


def test_after_prepare_the_first_training_attempt_is_created() -> None:
    planned = decide(a_job().prepared())
    assert created(planned) == [("Job", "qwen-train-0")]
    assert planned.status.attempt == 0
    assert says(planned, "Ready") == ("False", "Training")


def test_a_training_job_is_said_to_run_only_once_it_was_seen() -> None:
    assert says(decide(a_job().prepared()), "Trained") == ("Unknown", "Waiting")
    assert says(decide(a_job().prepared().running("qwen-train-0")), "Trained") == ("Unknown", "Running")


def test_a_training_job_that_the_status_does_not_know_of_is_taken_up() -> None:
    planned = decide(a_job().prepared().running("qwen-train-0"))
    assert created(planned) == []
    assert planned.status.attempt == 0


def test_a_finished_training_is_written_down_with_its_figures() -> None:
    planned = decide(a_job().training().done("qwen-train-0", trainLoss=0.123456, evalLoss=1.5, steps=500))
    assert says(planned, "Trained") == ("True", "Succeeded")
    assert planned.status.results == Results(train_loss="0.1235", eval_loss="1.5", steps=500)
    assert planned.status.progress is not None
    assert (planned.status.progress.percent, planned.status.progress.summary) == ("100%", "500/500")


def test_after_training_the_adapter_is_merged() -> None:
    assert created(decide(a_job().trained())) == [("Job", "qwen-merge")]


@pytest.mark.parametrize(
    "spec", [{"method": "Full"}, {"merge": {"enabled": False}}], ids=["nothing to merge", "merging is switched off"]
)
def test_a_job_without_a_merge_is_complete_after_training(spec: dict[str, object]) -> None:
    planned = decide(a_job().with_spec(**spec).trained())
    assert created(planned) == []
    assert says(planned, "Merged") == ("False", "NotRequested")
    assert says(planned, "Ready") == ("True", "Completed")


def test_the_merge_adds_its_parity_to_the_results() -> None:
    world = a_job().trained().with_status(results=Results(steps=500))
    planned = decide(world.done("qwen-merge", mergeMaxDifference=0.00012346))
    assert planned.status.results == Results(steps=500, merge_max_difference="0.0001235")
    assert says(planned, "Merged") == ("True", "Succeeded")


def test_a_merged_job_that_is_not_served_is_complete() -> None:
    planned = decide(a_job().merged())
    assert says(planned, "Ready") == ("True", "Completed")
    assert says(planned, "Complete") == ("True", "Succeeded")
    assert planned.status.completion_time == "2026-11-21T12:00:00Z"
    assert "Reconciling" not in types(planned)
    assert told(planned) == [("Normal", "Complete")]


def test_a_merged_job_is_served() -> None:
    planned = decide(a_job().with_spec(serving=SERVING).merged())
    assert applied(planned) == [("ConfigMap", "qwen-run"), ("Deployment", "qwen"), ("Service", "qwen")]
    assert says(planned, "Ready") == ("False", "Deploying")
    assert says(planned, "Served") == ("False", "NotAnswering")
    assert says(planned, "Complete") == ("False", "Running")
    assert planned.status.serving == ServingStatus(
        url="http://qwen.team.svc:8000/v1", model_name="qwen", ready_replicas=0
    )


@pytest.mark.parametrize(
    ("stage", "world"),
    [
        ("qwen-prepare", a_job().prepared().running("qwen-train-0")),
        ("qwen-train-0", a_job().trained().running("qwen-merge")),
        ("qwen-merge", a_job().merged().complete()),
    ],
    ids=["prepare", "train", "merge"],
)
def test_a_finished_job_that_was_deleted_by_hand_does_not_run_again(stage: str, world: WorldBuilder) -> None:
    assert ("Job", stage) not in created(decide(world))


def test_an_edit_of_the_spec_reaches_every_condition() -> None:
    planned = decide(a_job().generation(7).merged().complete().condition("Prepared", "True", "Succeeded"))
    assert planned.status.observed_generation == 7
    assert {entry.observed_generation for entry in planned.status.conditions} == {7}


@pytest.mark.parametrize(
    ("world", "words"),
    [
        (a_job().training().running("qwen-train-0").waits("qwen-train-0", "Unschedulable: 0/3 nodes"), "0/3 nodes"),
        (a_job().training().suspended("qwen-train-0"), "suspended by a queue"),
        (a_job().started().running("qwen-prepare").waits("qwen-prepare", "ImagePullBackOff"), "ImagePullBackOff"),
    ],
    ids=["no node fits", "a queue holds it", "no image"],
)
def test_a_pod_that_is_held_back_shows_as_queued_with_the_reason(world: WorldBuilder, words: str) -> None:
    planned = decide(world)
    assert says(planned, "Ready") == ("False", "Queued")
    assert words in condition(planned, "Ready").message
    assert planned.patch == ()


def test_several_nodes_get_a_headless_service_for_as_long_as_the_attempt_runs() -> None:
    spec = {"resources": {"nodes": 2}, "storage": {"accessMode": "ReadWriteMany"}}
    starting = decide(a_job().with_spec(**spec).prepared())
    assert ("Service", "qwen-train-0") in applied(starting)
    running = a_job().with_spec(**spec).training().running("qwen-train-0").child("Service", "qwen-train-0")
    assert ("Service", "qwen-train-0") in applied(decide(running))
    ended = a_job().with_spec(**spec).training().done("qwen-train-0").child("Service", "qwen-train-0")
    assert decide(ended).delete == (("Service", "qwen-train-0"),)
