"""Names that are taken, claims that are missing, time that is over, Jobs that have had their time."""

from __future__ import annotations

import pytest

from manifest_builders import OTHER_UID, WorldBuilder, a_job
from plan_answers import applied, condition, created, decide, says, told

TWO_NODES = {"resources": {"nodes": 2}, "storage": {"accessMode": "ReadWriteMany"}}


@pytest.mark.parametrize(
    ("kind", "name", "world"),
    [
        ("ConfigMap", "qwen-run", a_job()),
        ("PersistentVolumeClaim", "qwen-data", a_job()),
        ("Job", "qwen-prepare", a_job()),
        ("Job", "qwen-train-0", a_job()),
        ("Job", "qwen-train-3", a_job().training(attempt=3)),
        ("Service", "qwen-train-0", a_job().with_spec(**TWO_NODES)),
        ("Job", "qwen-merge", a_job()),
        ("Deployment", "qwen", a_job().with_spec(serving={"gpus": 0})),
        ("Service", "qwen", a_job().with_spec(serving={"gpus": 0}).merged().complete()),
    ],
)
def test_nothing_is_created_while_a_name_is_taken(kind: str, name: str, world: WorldBuilder) -> None:
    planned = decide(world.child(kind, name, owner=OTHER_UID, job="other"))
    assert (created(planned), applied(planned), planned.patch, planned.delete) == ([], [], (), ())
    assert says(planned, "Ready") == ("False", "NameTaken")
    message = condition(planned, "Ready").message
    assert f"{kind} {name} exists and belongs to FineTuneJob other (uid {OTHER_UID})" in message
    assert planned.requeue_after == 30
    assert told(planned) == [("Warning", "NameTaken")]


def test_an_object_without_an_owner_is_nobodys_to_take() -> None:
    planned = decide(a_job().child("ConfigMap", "qwen-run", owner=None))
    assert says(planned, "Ready") == ("False", "NameTaken")
    assert "has no owner" in condition(planned, "Ready").message


@pytest.mark.parametrize(
    ("kind", "name", "world"),
    [
        ("Service", "qwen", a_job()),
        ("Deployment", "qwen", a_job().with_spec(serving={"enabled": False})),
        ("Job", "qwen-merge", a_job().with_spec(method="Full")),
        ("Job", "qwen-prepare", a_job().prepared()),
        ("PersistentVolumeClaim", "qwen-data", a_job().with_spec(storage={"claim": "shared"}).claim("shared")),
    ],
)
def test_a_name_that_is_not_needed_may_be_anybodys(kind: str, name: str, world: WorldBuilder) -> None:
    planned = decide(world.child(kind, name, owner=OTHER_UID))
    assert condition(planned, "Ready").reason != "NameTaken"
    assert planned.delete == ()


def test_a_claim_that_an_earlier_job_of_this_name_left_is_used_again() -> None:
    planned = decide(a_job().child("PersistentVolumeClaim", "qwen-data", owner=None))
    assert created(planned) == [("Job", "qwen-prepare")]


def test_a_claim_of_that_name_without_our_labels_is_somebody_elses() -> None:
    planned = decide(a_job().claim("qwen-data"))
    assert says(planned, "Ready") == ("False", "NameTaken")


@pytest.mark.parametrize(
    "spec",
    [
        {"storage": {"claim": "absent"}},
        {"model": {"source": "pvc://absent/model"}},
        {"datasets": [{"source": "pvc://absent/chats.jsonl"}]},
        {"evaluation": {"dataset": {"source": "pvc://absent/held-back.jsonl"}}},
    ],
    ids=["storage", "model", "dataset", "evaluation"],
)
def test_a_missing_claim_is_waited_for_before_anything_is_created(spec: dict[str, object]) -> None:
    planned = decide(a_job().with_spec(**spec))
    assert (created(planned), applied(planned)) == ([], [])
    assert says(planned, "Ready") == ("False", "ClaimNotFound")
    assert "absent" in condition(planned, "Ready").message
    assert planned.requeue_after == 15


def test_a_claim_that_stays_missing_fails_the_job_after_ten_minutes() -> None:
    world = a_job().with_spec(storage={"claim": "absent"}).started()
    assert says(decide(world.at(599)), "Ready") == ("False", "ClaimNotFound")
    planned = decide(world.at(600))
    assert says(planned, "Failed") == ("True", "ClaimNotFound")
    assert says(planned, "Prepared") == ("False", "ClaimNotFound")


def test_the_job_may_read_from_the_claim_that_the_operator_makes() -> None:
    planned = decide(a_job().with_spec(model={"source": "pvc://qwen-data/base"}))
    assert created(planned) == [("PersistentVolumeClaim", "qwen-data"), ("Job", "qwen-prepare")]


def test_a_claim_that_was_lost_with_the_work_on_it_is_not_replaced_by_an_empty_one() -> None:
    assert created(decide(a_job().trained())) == [("Job", "qwen-merge")]


def test_the_deadline_fails_the_job_and_stops_what_runs() -> None:
    world = a_job().with_spec(activeDeadlineSeconds=60).training().running("qwen-train-0")
    before = decide(world.at(59))
    assert before.requeue_after == 1
    assert before.delete == ()
    after = decide(world.at(60))
    assert says(after, "Failed") == ("True", "DeadlineExceeded")
    assert says(after, "Trained") == ("False", "DeadlineExceeded")
    assert after.delete == (("Job", "qwen-train-0"),)


def test_the_deadline_takes_down_a_deployment_that_never_answered() -> None:
    world = a_job().with_spec(activeDeadlineSeconds=60, serving={"gpus": 0}).merged()
    planned = decide(world.child("Deployment", "qwen").child("Service", "qwen").at(60))
    assert says(planned, "Served") == ("False", "DeadlineExceeded")
    assert planned.delete == (("Deployment", "qwen"), ("Service", "qwen"))


def test_a_complete_job_has_no_deadline() -> None:
    planned = decide(a_job().with_spec(activeDeadlineSeconds=60).merged().complete().at(3600))
    assert says(planned, "Ready") == ("True", "Completed")


def finished_with_jobs(world: WorldBuilder) -> WorldBuilder:
    return world.with_spec(ttlSecondsAfterFinished=100).done("qwen-prepare").done("qwen-train-0").done("qwen-merge")


@pytest.mark.parametrize("world", [a_job().merged().complete(), a_job().failed()], ids=["complete", "failed"])
def test_the_jobs_of_a_finished_job_are_deleted_after_their_time(world: WorldBuilder) -> None:
    before = decide(finished_with_jobs(world).at(99))
    assert before.delete == ()
    assert before.requeue_after == 1
    after = decide(finished_with_jobs(world).at(100))
    assert set(after.delete) == {("Job", "qwen-prepare"), ("Job", "qwen-train-0"), ("Job", "qwen-merge")}
    assert created(after) == []


def test_the_jobs_of_an_unfinished_job_are_kept() -> None:
    planned = decide(a_job().with_spec(ttlSecondsAfterFinished=0).prepared().done("qwen-prepare").at(3600))
    assert planned.delete == ()
