"""spec.suspend: stopping, staying stopped and going on."""

from __future__ import annotations

import pytest

from manifest_builders import WorldBuilder, a_job
from plan_answers import applied, condition, created, decide, says, told, types

SUSPEND = {"suspend": True}
QUEUE = {"resources": {"queue": "gpus"}}


def suspended() -> WorldBuilder:
    """A job whose suspension stands in the status."""
    return a_job().with_spec(**SUSPEND).condition("Suspended", "True", "Suspended")


def resumed() -> WorldBuilder:
    return a_job().condition("Suspended", "True", "Suspended")


def test_a_job_that_is_created_suspended_gets_no_job() -> None:
    planned = decide(a_job().with_spec(**SUSPEND))
    assert created(planned) == [("PersistentVolumeClaim", "qwen-data")]
    assert says(planned, "Suspended") == ("True", "Suspended")
    assert says(planned, "Ready") == ("False", "Suspended")
    assert "Reconciling" not in types(planned)


def test_suspension_is_written_down_before_a_job_is_touched() -> None:
    world = a_job().with_spec(**SUSPEND).training().running("qwen-train-0")
    first = decide(world)
    assert first.patch == ()
    assert says(first, "Suspended") == ("True", "Suspended")
    assert first.requeue_after is not None
    assert first.requeue_after < 1


@pytest.mark.parametrize("name", ["qwen-prepare", "qwen-train-0", "qwen-merge"])
def test_a_running_job_is_suspended(name: str) -> None:
    stages = {
        "qwen-prepare": suspended().started,
        "qwen-train-0": suspended().training,
        "qwen-merge": suspended().trained,
    }
    planned = decide(stages[name]().running(name))
    assert planned.patch == (("Job", name, {"spec": {"suspend": True}}),)
    assert planned.delete == ()
    assert says(planned, "Ready") == ("False", "Suspended")


def test_a_suspended_job_is_left_alone() -> None:
    planned = decide(suspended().training().suspended("qwen-train-0"))
    assert (planned.patch, planned.delete, created(planned)) == ((), (), [])
    assert says(planned, "Ready") == ("False", "Suspended")


def test_a_job_of_a_queue_is_deleted_as_the_queue_would_resume_it() -> None:
    planned = decide(suspended().with_spec(**QUEUE).training().running("qwen-train-0"))
    assert planned.delete == (("Job", "qwen-train-0"),)
    assert planned.patch == ()


def test_the_queue_may_be_named_by_a_label_of_the_job_as_well() -> None:
    world = suspended().with_labels({"kueue.x-k8s.io/queue-name": "gpus"}).training().running("qwen-train-0")
    assert decide(world).patch == ()


def test_a_job_that_vanishes_while_suspended_is_no_failed_attempt() -> None:
    planned = decide(suspended().with_spec(**QUEUE).training())
    assert planned.status.attempts == []
    assert says(planned, "Trained") == ("Unknown", "Suspended")
    assert created(planned) == []


def test_a_queued_job_starts_the_same_attempt_again_when_it_is_resumed() -> None:
    world = resumed().with_spec(**QUEUE).prepared().with_status(attempt=1)
    planned = decide(world.condition("Trained", "Unknown", "Suspended"))
    assert created(planned) == [("Job", "qwen-train-1")]
    assert says(planned, "Suspended") == ("False", "Running")


def test_a_suspended_job_is_resumed() -> None:
    planned = decide(resumed().training().suspended("qwen-train-0"))
    assert planned.patch == (("Job", "qwen-train-0", {"spec": {"suspend": False}}),)
    assert says(planned, "Suspended") == ("True", "Suspended")
    assert says(planned, "Ready") == ("False", "Training")


def test_suspended_ends_once_the_jobs_run_again() -> None:
    planned = decide(resumed().training().running("qwen-train-0"))
    assert says(planned, "Suspended") == ("False", "Running")
    assert planned.patch == ()


def test_a_job_that_somebody_else_suspended_is_not_resumed() -> None:
    planned = decide(a_job().training().suspended("qwen-train-0"))
    assert planned.patch == ()
    assert says(planned, "Ready") == ("False", "Queued")


def test_a_suspended_service_has_no_pods() -> None:
    planned = decide(suspended().with_spec(serving={"gpus": 0, "replicas": 3}).merged().complete())
    deployment = next(manifest for manifest in planned.apply if manifest["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == 0
    assert says(planned, "Served") == ("False", "NotAnswering")
    assert says(planned, "Complete") == ("True", "Succeeded")
    assert says(planned, "Ready") == ("False", "Suspended")


def test_a_finished_stage_is_taken_down_while_suspended_and_the_next_is_not_begun() -> None:
    finished = decide(suspended().training().done("qwen-train-0"))
    assert says(finished, "Trained") == ("True", "Succeeded")
    after = decide(suspended().trained())
    assert created(after) == []
    assert says(after, "Ready") == ("False", "Suspended")


def test_a_complete_job_that_serves_nothing_stays_complete_when_it_is_suspended() -> None:
    planned = decide(a_job().with_spec(**SUSPEND).merged().complete())
    assert says(planned, "Ready") == ("True", "Completed")
    assert "Suspended" not in types(planned)


def test_suspending_is_told_once() -> None:
    assert told(decide(a_job().with_spec(**SUSPEND).prepared())) == [("Normal", "Suspended")]
    before = suspended().prepared().condition("Ready", "False", "Suspended")
    assert told(decide(before)) == []


def test_missing_claims_do_not_matter_while_suspended() -> None:
    planned = decide(suspended().with_spec(storage={"claim": "shared"}).at(3600))
    assert says(planned, "Ready") == ("False", "Suspended")
    assert applied(planned) == [("ConfigMap", "qwen-run")]
    assert "Set it to false" in condition(planned, "Suspended").message
