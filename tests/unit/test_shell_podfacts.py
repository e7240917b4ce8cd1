"""How a pod's end, and a pod that does not run, are read from its status."""

import datetime as dt
from typing import Any

import pytest

from finetune_operator.shell.podfacts import deciding_end, waiting_reason

Manifest = dict[str, Any]
NOW = dt.datetime(2026, 1, 2, 4, 0, tzinfo=dt.UTC)


def pod(name: str = "train", phase: str = "Running", **status: Any) -> Manifest:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": "2026-01-02T03:00:00Z"},
        "status": {"phase": phase, **status},
    }


def ended(exit_code: int, at: str, reason: str = "Error", name: str = "main", message: str = "") -> Manifest:
    terminated = {"exitCode": exit_code, "reason": reason, "message": message, "finishedAt": f"2026-01-02T{at}Z"}
    return {"name": name, "state": {"terminated": terminated}}


def waits(reason: str, message: str = "") -> Manifest:
    return {"name": "main", "state": {"waiting": {"reason": reason, "message": message}}}


def disrupted(reason: str) -> list[Manifest]:
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason}]


def test_the_first_pod_that_failed_decides() -> None:
    pods = [
        pod("second", "Failed", containerStatuses=[ended(1, "03:20:00")]),
        pod("first", "Failed", containerStatuses=[ended(71, "03:10:00", message="out of memory")]),
        pod("well", "Succeeded", containerStatuses=[ended(0, "03:05:00", "Completed")]),
    ]
    end = deciding_end(pods)
    assert end is not None
    assert (end.pod, end.exit_code, end.message, end.failed) == ("first", 71, "out of memory", True)


def test_of_pods_tried_one_after_the_other_the_last_decides() -> None:
    pods = [
        pod("lost", "Failed", containerStatuses=[ended(137, "03:10:00")]),
        pod("then", "Failed", containerStatuses=[ended(65, "03:20:00", message="rows.jsonl:3")]),
    ]
    end = deciding_end(pods, retried=True)
    assert end is not None
    assert (end.pod, end.exit_code) == ("then", 65)


def test_where_none_failed_the_last_success_decides() -> None:
    pods = [
        pod(name, "Succeeded", containerStatuses=[ended(0, at, "Completed")])
        for name, at in (("a", "03:30:00"), ("b", "03:10:00"))
    ]
    end = deciding_end(pods)
    assert end is not None
    assert (end.pod, end.failed) == ("a", False)


def test_a_failed_init_container_is_found() -> None:
    end = deciding_end([pod(phase="Failed", initContainerStatuses=[ended(67, "03:10:00", name="fetch")])])
    assert end is not None
    assert (end.container, end.exit_code) == ("fetch", 67)


def test_while_nothing_has_ended_there_is_no_end() -> None:
    assert deciding_end([pod(containerStatuses=[{"name": "main", "state": {"running": {}}}])]) is None


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"containerStatuses": [ended(137, "03:10:00", "OOMKilled")]}, "OOMKilled"),
        (
            {
                "containerStatuses": [ended(137, "03:10:00", "OOMKilled")],
                "conditions": disrupted("PreemptionByScheduler"),
            },
            "OOMKilled",
        ),
        (
            {"containerStatuses": [ended(143, "03:10:00")], "conditions": disrupted("PreemptionByScheduler")},
            "PreemptionByScheduler",
        ),
        ({"containerStatuses": [ended(143, "03:10:00")], "reason": "Terminated"}, "Terminated"),
        ({"containerStatuses": [ended(1, "03:10:00")]}, "Error"),
    ],
)
def test_the_most_telling_reason_is_taken(status: Manifest, reason: str) -> None:
    end = deciding_end([pod(phase="Failed", **status)])
    assert end is not None
    assert end.reason == reason


def test_an_evicted_pod_ended_without_an_exit_code() -> None:
    end = deciding_end([pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")])
    assert end is not None
    assert (end.exit_code, end.reason, end.failed) == (None, "Evicted", True)
    assert "low on resource" in end.message


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
                ]
            },
            "Unschedulable: 0/3 nodes",
        ),
        ({"containerStatuses": [waits("ImagePullBackOff", "no such image")]}, "ImagePullBackOff: no such image"),
        (
            {"containerStatuses": [waits("CreateContainerConfigError", "secret x not found")]},
            "CreateContainerConfigError: secret x not found",
        ),
        ({"initContainerStatuses": [waits("ErrImagePull")]}, "ErrImagePull"),
        ({"containerStatuses": [waits("ContainerCreating")], "startTime": "2026-01-02T03:59:30Z"}, ""),
        ({"containerStatuses": [waits("ContainerCreating")]}, ""),
    ],
)
def test_a_pod_that_does_not_run_says_why(status: Manifest, words: str) -> None:
    assert waiting_reason([pod(phase="Pending", **status)], NOW) == words


def test_a_container_that_is_created_for_long_may_miss_a_volume() -> None:
    slow = pod(phase="Pending", containerStatuses=[waits("ContainerCreating")], startTime="2026-01-02T03:58:00Z")
    words = waiting_reason([slow], NOW)
    assert words.startswith("ContainerCreating for more than 60 s")
    assert "kubectl describe pod train" in words


def test_pods_that_ended_or_are_going_wait_for_nothing() -> None:
    going = pod(phase="Pending", containerStatuses=[waits("ImagePullBackOff")])
    going["metadata"]["deletionTimestamp"] = "2026-01-02T03:00:00Z"
    assert waiting_reason([going, pod(phase="Failed", containerStatuses=[waits("ImagePullBackOff")])], NOW) == ""
