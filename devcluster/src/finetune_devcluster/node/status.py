"""The status of a pod, computed from the records of its containers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune_devcluster.node.settings import Object
from finetune_devcluster.node.states import ContainerRecord, Role, Running, State, Terminated, Waiting

CONTAINER_ID_SCHEME = "process-node"


@dataclass(frozen=True)
class PodFacts:
    """What the status says besides the containers. `failure`: reason and message of a pod that was ended early."""

    records: list[ContainerRecord]
    pod_ip: str | None
    host_ip: str
    started_at: str
    sandbox_ready: bool
    failure: tuple[str, str] | None = None
    stopped: bool = False


def pod_status(pod: Object, facts: PodFacts, now: str) -> Object:
    """The whole status but for the conditions that others own."""
    status: Object = {
        "phase": phase(facts),
        "conditions": conditions(pod, facts, now),
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
        "startTime": facts.started_at,
        "containerStatuses": [container_status(r) for r in facts.records if r.role is Role.MAIN],
    }
    if init := [container_status(record) for record in facts.records if record.role is not Role.MAIN]:
        status["initContainerStatuses"] = init
    if facts.pod_ip:
        status |= {"podIP": facts.pod_ip, "podIPs": [{"ip": facts.pod_ip}]}
    if generation := pod["metadata"].get("generation"):
        status["observedGeneration"] = generation
    if facts.failure:
        status |= {"reason": facts.failure[0], "message": facts.failure[1]}
    return status


def phase(facts: PodFacts) -> str:
    main = [record for record in facts.records if record.role is Role.MAIN]
    init = [record for record in facts.records if record.role is Role.INIT]
    if facts.stopped or facts.failure or all(record.done for record in main) or any(record.failed for record in init):
        return _final_phase(facts, main)
    if not _initialized(facts.records):
        return "Pending"
    if any(isinstance(record.state, Running) or record.done or record.last for record in main):
        return "Running"
    return "Pending"


def _final_phase(facts: PodFacts, main: list[ContainerRecord]) -> str:
    succeeded = all(isinstance(r.state, Terminated) and r.state.exit_code == 0 for r in main)
    return "Succeeded" if succeeded and not facts.failure else "Failed"


def _initialized(records: list[ContainerRecord]) -> bool:
    return all(
        record.started if record.role is Role.SIDECAR else record.ready
        for record in records
        if record.role is not Role.MAIN
    )


def conditions(pod: Object, facts: PodFacts, now: str) -> list[Object]:
    ended = phase(facts) in ("Succeeded", "Failed")
    succeeded = phase(facts) == "Succeeded"
    initialized = _initialized(facts.records) or succeeded
    containers, why = _containers_ready(facts.records, ended, initialized)
    ready, why_not = _gated(pod, containers, why)
    wanted: list[tuple[str, bool, tuple[str, str]]] = [
        ("PodReadyToStartContainers", facts.sandbox_ready, ("", "")),
        ("Initialized", initialized, ("", "") if initialized else _unready_init(facts.records)),
        ("ContainersReady", containers, why),
        ("Ready", ready, why_not),
    ]
    if succeeded:
        wanted[1] = ("Initialized", True, ("PodCompleted", ""))
    known = {entry["type"]: entry for entry in (pod.get("status") or {}).get("conditions") or []}
    return [_condition(known.get(kind), kind, value, reason, now) for kind, value, reason in wanted]


def _containers_ready(records: list[ContainerRecord], ended: bool, initialized: bool) -> tuple[bool, tuple[str, str]]:
    if ended:
        return False, ("PodCompleted", "") if not any(r.failed for r in records) else ("PodFailed", "")
    counted = [record for record in records if record.role is not Role.INIT]
    unready = [record.name for record in counted if not record.ready]
    if unready or not initialized:
        return False, ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    return True, ("", "")


def _unready_init(records: list[ContainerRecord]) -> tuple[str, str]:
    names = [record.name for record in records if record.role is not Role.MAIN and not record.ready]
    return "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(names)}]"


def _gated(pod: Object, containers: bool, why: tuple[str, str]) -> tuple[bool, tuple[str, str]]:
    if not containers:
        return False, why
    values = {entry["type"]: entry["status"] for entry in (pod.get("status") or {}).get("conditions") or []}
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    missing = [gate for gate in gates if values.get(gate) != "True"]
    if missing:
        return False, ("ReadinessGatesNotReady", f"readiness gates not true: {' '.join(missing)}")
    return True, ("", "")


def _condition(known: Object | None, kind: str, value: bool, why: tuple[str, str], now: str) -> Object:
    text = "True" if value else "False"
    changed = known is None or known["status"] != text or not known.get("lastTransitionTime")
    condition: Object = {
        "type": kind,
        "status": text,
        "lastProbeTime": None,
        "lastTransitionTime": now if changed or known is None else known["lastTransitionTime"],
        # Null and not left out: the patch has to take away the reason of an earlier state.
        "reason": why[0] or None,
        "message": why[1] or None,
    }
    return condition


def container_status(record: ContainerRecord) -> Object:
    return {
        "name": record.name,
        "image": record.spec.get("image", ""),
        "imageID": "",
        "containerID": record.container_id,
        "restartCount": record.restart_count,
        "ready": record.ready,
        "started": record.started,
        "state": _state(record.state),
        "lastState": _state(record.last) if record.last else {},
    }


def _state(state: State) -> Object:
    if isinstance(state, Waiting):
        return {"waiting": _filled(reason=state.reason, message=state.message)}
    if isinstance(state, Running):
        return {"running": {"startedAt": state.started_at}}
    return {
        "terminated": {"exitCode": state.exit_code}
        | _filled(
            reason=state.reason,
            message=state.message,
            startedAt=state.started_at,
            finishedAt=state.finished_at,
            containerID=state.container_id,
        )
    }


def _filled(**values: Any) -> Object:
    return {key: value for key, value in values.items() if value}
