"""Phase and conditions of a pod from what its containers do."""

from typing import Any

import pytest

from finetune_devcluster.node.recovery import resume_records
from finetune_devcluster.node.states import ContainerRecord, Running, State, Terminated, Waiting, records_of, restarts
from finetune_devcluster.node.status import PodFacts, container_status, phase, pod_status

NOW = "2026-01-01T00:00:10Z"
UP = Running("2026-01-01T00:00:00Z")


def ended(code: int) -> Terminated:
    return Terminated(code, "Completed" if code == 0 else "Error", "2026-01-01T00:00:00Z", NOW)


def pod(
    *, policy: str = "Never", init: tuple[str, ...] = (), sidecars: tuple[str, ...] = (), main: int = 1
) -> dict[str, Any]:
    first = [{"name": name} for name in init] + [{"name": name, "restartPolicy": "Always"} for name in sidecars]
    containers = [{"name": f"main-{number}"} for number in range(main)]
    return {
        "metadata": {"generation": 4},
        "spec": {"restartPolicy": policy, "initContainers": first, "containers": containers},
    }


def put(record: ContainerRecord, state: State, *, done: bool | None = None, ready: bool = True) -> None:
    record.state = state
    record.started = record.probe_ready = isinstance(state, Running) and ready
    record.done = isinstance(state, Terminated) if done is None else done


def facts(records: list[ContainerRecord], **changes: Any) -> PodFacts:
    settings: dict[str, Any] = {
        "pod_ip": "10.244.0.2",
        "host_ip": "10.201.1.2",
        "started_at": "2026-01-01T00:00:00Z",
        "sandbox_ready": True,
    }
    return PodFacts(records, **(settings | changes))


def conditions(manifest: dict[str, Any], given: PodFacts) -> dict[str, dict[str, Any]]:
    return {entry["type"]: entry for entry in pod_status(manifest, given, NOW)["conditions"]}


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([Waiting("ContainerCreating")], "Pending"),
        ([UP], "Running"),
        ([UP, ended(0)], "Running"),
        ([ended(0)], "Succeeded"),
        ([ended(0), ended(0)], "Succeeded"),
        ([ended(7)], "Failed"),
        ([ended(0), ended(7)], "Failed"),
        ([UP, ended(7)], "Running"),
    ],
)
def test_the_phase_follows_the_main_containers(states: list[State], expected: str) -> None:
    records = records_of(pod(main=len(states)))
    for record, state in zip(records, states, strict=True):
        put(record, state)
    assert phase(facts(records)) == expected


def test_a_container_that_waits_for_its_restart_keeps_the_pod_running() -> None:
    (record,) = records_of(pod(policy="OnFailure"))
    put(record, Waiting("CrashLoopBackOff"))
    record.last = ended(1)
    assert phase(facts([record])) == "Running"


def test_a_pod_is_pending_until_its_init_containers_have_succeeded() -> None:
    manifest = pod(init=("first", "second"))
    first, second, main = records_of(manifest)
    put(first, ended(0))
    put(second, UP)
    found = facts([first, second, main])
    assert phase(found) == "Pending"
    initialized = conditions(manifest, found)["Initialized"]
    assert (initialized["status"], initialized["message"]) == ("False", "containers with incomplete status: [second]")
    put(second, ended(0))
    put(main, UP)
    assert phase(found) == "Running"


def test_a_failed_init_container_fails_the_pod() -> None:
    init, main = records_of(pod(init=("first",)))
    put(init, ended(3))
    assert phase(facts([init, main])) == "Failed"


def test_a_sidecar_counts_for_readiness_but_not_for_the_end() -> None:
    manifest = pod(sidecars=("proxy",))
    sidecar, main = records_of(manifest)
    put(sidecar, UP, ready=False)
    sidecar.started = True
    put(main, UP)
    assert conditions(manifest, facts([sidecar, main]))["Ready"]["message"] == "containers with unready status: [proxy]"
    put(main, ended(0))
    put(sidecar, ended(137), done=False)
    assert phase(facts([sidecar, main])) == "Succeeded"


def test_a_ready_pod_says_so() -> None:
    manifest = pod()
    (record,) = records_of(manifest)
    put(record, UP)
    status = pod_status(manifest, facts([record]), NOW)
    assert {entry["type"]: entry["status"] for entry in status["conditions"]} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "ContainersReady": "True",
        "Ready": "True",
    }
    assert (status["podIP"], status["podIPs"], status["observedGeneration"]) == (
        "10.244.0.2",
        [{"ip": "10.244.0.2"}],
        4,
    )


def test_a_readiness_gate_holds_the_pod_back() -> None:
    manifest = pod()
    manifest["spec"]["readinessGates"] = [{"conditionType": "example.com/open"}]
    (record,) = records_of(manifest)
    put(record, UP)
    found = conditions(manifest, facts([record]))
    assert (found["ContainersReady"]["status"], found["Ready"]["reason"]) == ("True", "ReadinessGatesNotReady")
    manifest["status"] = {"conditions": [{"type": "example.com/open", "status": "True"}]}
    assert conditions(manifest, facts([record]))["Ready"]["status"] == "True"


def test_a_transition_time_changes_only_with_the_status() -> None:
    manifest = pod()
    (record,) = records_of(manifest)
    put(record, UP)
    before = {"lastTransitionTime": "2025-12-31T00:00:00Z"}
    manifest["status"] = {
        "conditions": [
            {"type": "Ready", "status": "True", **before},
            {"type": "ContainersReady", "status": "False", **before},
        ]
    }
    found = conditions(manifest, facts([record]))
    assert found["Ready"]["lastTransitionTime"] == "2025-12-31T00:00:00Z"
    assert found["ContainersReady"]["lastTransitionTime"] == NOW


def test_a_pod_past_its_deadline_is_failed_with_the_reason() -> None:
    manifest = pod()
    (record,) = records_of(manifest)
    put(record, ended(0))
    status = pod_status(manifest, facts([record], failure=("DeadlineExceeded", "too long")), NOW)
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "DeadlineExceeded", "too long")


def test_a_stopped_pod_is_failed_unless_all_its_containers_succeeded() -> None:
    records = records_of(pod(policy="Always"))
    put(records[0], ended(143))
    assert phase(facts(records, stopped=True)) == "Failed"
    put(records[0], ended(0))
    assert phase(facts(records, stopped=True)) == "Succeeded"


def test_a_container_status_tells_this_run_and_the_one_before() -> None:
    (record,) = records_of(pod(policy="Always"))
    put(record, UP)
    record.last, record.restart_count = ended(7), 2
    status = container_status(record)
    assert (status["restartCount"], status["ready"], status["started"]) == (2, True, True)
    assert status["state"] == {"running": {"startedAt": UP.started_at}}
    assert status["lastState"]["terminated"]["exitCode"] == 7


@pytest.mark.parametrize(
    ("policy", "exit_code", "expected"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_the_restart_policy_decides(policy: str, exit_code: int, expected: bool) -> None:
    assert restarts(policy, exit_code) is expected


def with_status(manifest: dict[str, Any], **states: dict[str, Any]) -> dict[str, Any]:
    init = {entry["name"] for entry in manifest["spec"]["initContainers"]}
    entries = [{"name": name.replace("_", "-"), "restartCount": 1, "state": state} for name, state in states.items()]
    manifest["status"] = {
        "initContainerStatuses": [entry for entry in entries if entry["name"] in init],
        "containerStatuses": [entry for entry in entries if entry["name"] not in init],
    }
    return manifest


RUNNING: dict[str, Any] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
DONE: dict[str, Any] = {"terminated": {"exitCode": 0, "reason": "Completed"}}


def test_a_new_pod_starts_from_nothing() -> None:
    (record,) = resume_records(pod())
    assert (record.done, record.restart_count, record.last) == (False, 0, None)


def test_what_ran_when_the_node_died_counts_as_killed_and_is_started_again_if_the_policy_says_so() -> None:
    (record,) = resume_records(with_status(pod(policy="OnFailure"), main_0=RUNNING))
    assert (record.done, record.restart_count) == (False, 2)
    assert record.last is not None
    assert record.last.exit_code == 137


def test_what_ran_when_the_node_died_has_failed_if_it_is_never_restarted() -> None:
    (record,) = resume_records(with_status(pod(policy="Never"), main_0=RUNNING))
    assert record.done
    assert isinstance(record.state, Terminated)
    assert (record.state.exit_code, "node was restarted" in record.state.message) == (137, True)


def test_a_completed_container_is_not_run_again() -> None:
    (record,) = resume_records(with_status(pod(policy="OnFailure"), main_0=DONE))
    assert record.done
    assert phase(facts([record])) == "Succeeded"


def test_init_containers_run_again_when_the_main_container_does() -> None:
    manifest = with_status(pod(policy="OnFailure", init=("first",)), first=DONE, main_0=RUNNING)
    init, main = resume_records(manifest)
    assert (init.done, main.done) == (False, False)
    assert init.last is not None
