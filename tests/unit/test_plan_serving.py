"""Serving: Served means that a pod has answered, and serving stays managed after the job is complete."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.build import deployment
from finetune_operator.settings import Settings
from manifest_builders import WorldBuilder, a_job
from plan_answers import applied, condition, created, decide, says, told, types


def serving(**fields: Any) -> WorldBuilder:
    return a_job().with_spec(serving={"gpus": 0, **fields}).merged()


def deployed(
    world: WorldBuilder, *, replicas: int = 1, ready: int = 1, updated: int | None = None, **status: Any
) -> WorldBuilder:
    """The world with the Deployment that is wanted in it, and so many of its pods ready."""
    job = world.job()
    assert job.spec.serving is not None
    wanted = deployment.build(job, Settings(), job.spec.serving, replicas=replicas)
    counts = {
        "observedGeneration": 1,
        "replicas": replicas,
        "updatedReplicas": replicas if updated is None else updated,
        "readyReplicas": ready,
    }
    world.child("Deployment", "qwen", spec=wanted["spec"], status=counts | status).child("Service", "qwen")
    live = world.observed().children["Deployment", "qwen"]
    live["metadata"] |= {"generation": 1, "annotations": wanted["metadata"]["annotations"]}
    return world


def test_a_ready_pod_makes_the_job_served_ready_and_complete() -> None:
    planned = decide(deployed(serving()))
    assert says(planned, "Served") == ("True", "Answering")
    assert says(planned, "Ready") == ("True", "Serving")
    assert says(planned, "Complete") == ("True", "Succeeded")
    assert planned.status.serving is not None
    assert planned.status.serving.ready_replicas == 1
    assert told(planned) == [("Normal", "Served"), ("Normal", "Complete")]


def test_a_pod_that_is_not_ready_does_not_serve() -> None:
    planned = decide(deployed(serving(), ready=0))
    assert says(planned, "Served") == ("False", "NotAnswering")
    assert says(planned, "Ready") == ("False", "Deploying")
    assert says(planned, "Complete") == ("False", "Running")


def test_a_complete_job_whose_pods_stop_answering_is_not_ready_but_stays_complete() -> None:
    world = deployed(serving().complete().condition("Served", "True", "Answering"), ready=0)
    planned = decide(world.condition("Ready", "True", "Serving"))
    assert says(planned, "Served") == ("False", "NotAnswering")
    assert says(planned, "Ready") == ("False", "Deploying")
    assert says(planned, "Complete") == ("True", "Succeeded")
    assert ("Warning", "NotAnswering") in told(planned)


def test_some_answering_pods_are_enough() -> None:
    planned = decide(deployed(serving(replicas=4), replicas=4, ready=3))
    assert says(planned, "Ready") == ("True", "Serving")
    assert condition(planned, "Served").message == "3 of 4 pods answer"


@pytest.mark.parametrize(
    "world",
    [
        deployed(serving(replicas=2), replicas=2, ready=2, updated=1),
        deployed(serving(replicas=2), replicas=1, ready=1),
        deployed(serving(), ready=1, observedGeneration=0),
    ],
    ids=["old pods are left", "the Deployment is not as wanted", "the controller has not looked yet"],
)
def test_a_rollout_that_is_under_way_is_served_but_not_ready(world: WorldBuilder) -> None:
    planned = decide(world)
    assert says(planned, "Served") == ("True", "Answering")
    assert says(planned, "Ready") == ("False", "Deploying")
    assert "Reconciling" in types(planned)


def test_a_deployment_that_was_deleted_is_applied_again() -> None:
    planned = decide(serving().complete())
    assert ("Deployment", "qwen") in applied(planned)
    assert created(planned) == []


def test_switching_serving_off_takes_the_deployment_and_the_service_down() -> None:
    world = deployed(serving().complete().condition("Served", "True", "Answering"))
    planned = decide(world.with_spec(serving={"gpus": 0, "enabled": False}))
    assert planned.delete == (("Deployment", "qwen"), ("Service", "qwen"))
    assert says(planned, "Served") == ("False", "NotRequested")
    assert says(planned, "Ready") == ("True", "Completed")
    assert planned.status.serving is None
    assert ("Warning", "NotAnswering") not in told(planned)


def test_switching_serving_on_after_completion_deploys() -> None:
    planned = decide(serving().complete().condition("Served", "False", "NotRequested"))
    assert says(planned, "Ready") == ("False", "Deploying")
    assert says(planned, "Served") == ("False", "NotAnswering")
    assert says(planned, "Complete") == ("True", "Succeeded")


def test_switching_serving_on_before_its_turn_makes_it_wait() -> None:
    world = a_job().with_spec(serving={"gpus": 0}).training().condition("Served", "False", "NotRequested")
    assert says(decide(world.running("qwen-train-0")), "Served") == ("Unknown", "Waiting")


def test_no_replicas_is_nothing_to_wait_for() -> None:
    planned = decide(deployed(serving(replicas=0), replicas=0, ready=0))
    assert says(planned, "Ready") == ("True", "Completed")
    assert says(planned, "Served") == ("False", "NotAnswering")


def test_a_serving_pod_that_no_node_takes_is_queued() -> None:
    planned = decide(deployed(serving(), ready=0).waits("qwen", "Unschedulable: 0/3 nodes"))
    assert says(planned, "Ready") == ("False", "Queued")
    assert "0/3 nodes" in condition(planned, "Ready").message


def test_a_server_that_ends_again_and_again_does_not_look_as_if_it_queued() -> None:
    planned = decide(deployed(serving(), ready=0).waits("qwen", "CrashLoopBackOff: back-off 10s"))
    assert says(planned, "Ready") == ("False", "Deploying")
    message = condition(planned, "Ready").message
    assert "CrashLoopBackOff" in message
    assert "kubectl logs deployment/qwen --previous" in message


STUCK = {"type": "Progressing", "status": "False", "message": "ReplicaSet has timed out progressing."}


def test_a_rollout_that_is_stuck_says_where_to_look() -> None:
    planned = decide(deployed(serving(), ready=0, conditions=[STUCK]))
    message = condition(planned, "Ready").message
    assert "has timed out" in message
    assert "kubectl logs deployment/qwen" in message


def test_nobody_waits_for_ever_for_a_model_that_cannot_be_started() -> None:
    world = deployed(serving(), ready=0, conditions=[STUCK]).waits("qwen", "CrashLoopBackOff: back-off 5m0s")
    planned = decide(world)
    assert says(planned, "Ready") == ("False", "NotStarting")
    assert says(planned, "Stalled") == ("True", "NotStarting")
    assert "CrashLoopBackOff" in condition(planned, "Stalled").message
    assert "Reconciling" not in types(planned)
    assert says(planned, "Failed") == ("False", "Running")
    assert ("Warning", "NotStarting") in told(planned)


def test_a_model_that_answers_after_all_is_served() -> None:
    world = deployed(serving(), conditions=[STUCK | {"status": "True"}])
    planned = decide(world.condition("Ready", "False", "NotStarting").condition("Stalled", "True", "NotStarting"))
    assert says(planned, "Ready") == ("True", "Serving")
    assert "Stalled" not in types(planned)


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        (deployed(serving(), ready=0, conditions=[STUCK]).waits("qwen", "Unschedulable: 0/3 nodes"), "Queued"),
        (deployed(serving(), ready=0, conditions=[STUCK], observedGeneration=0), "Deploying"),
        (deployed(serving(replicas=2), replicas=2, ready=1, updated=1, conditions=[STUCK]), "Deploying"),
    ],
    ids=["it waits for a place", "that was the rollout before", "another pod answers"],
)
def test_a_rollout_that_takes_its_time_for_other_reasons_is_under_way(world: WorldBuilder, reason: str) -> None:
    planned = decide(world)
    assert says(planned, "Ready") == ("False", reason)
    assert "Stalled" not in types(planned)


def test_several_pods_have_a_disruption_budget_and_a_single_one_has_none() -> None:
    budget = ("PodDisruptionBudget", "qwen")
    assert budget in applied(decide(serving(replicas=2)))
    assert budget not in applied(decide(serving(replicas=1)))
    assert budget not in applied(decide(serving(replicas=2).with_spec(suspend=True)))


@pytest.mark.parametrize("spec", [{"serving": {"replicas": 1}}, {"serving": {"enabled": False}}, {"serving": None}])
def test_a_budget_goes_when_there_are_not_several_pods_any_more(spec: dict[str, Any]) -> None:
    world = a_job().merged().with_spec(**spec).child("PodDisruptionBudget", "qwen")
    assert ("PodDisruptionBudget", "qwen") in decide(world).delete


def test_a_budget_of_somebody_else_is_neither_taken_over_nor_deleted() -> None:
    planned = decide(serving(replicas=2).child("PodDisruptionBudget", "qwen", owner=None))
    assert says(planned, "Ready") == ("False", "NameTaken")
    assert not planned.delete
    assert decide(serving(replicas=1).child("PodDisruptionBudget", "qwen", owner=None)).delete == ()
