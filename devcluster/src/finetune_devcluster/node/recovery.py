"""What a pod's containers are when the node finds the pod: new, or left over from the node's earlier life."""

from __future__ import annotations

from finetune_devcluster.node import clock
from finetune_devcluster.node.settings import Object
from finetune_devcluster.node.states import ContainerRecord, Role, Terminated, records_of, restarts

KILLED_EXIT_CODE = 137
KILLED_MESSAGE = "The container was killed because the process node was restarted."


def resume_records(pod: Object) -> list[ContainerRecord]:
    """Records that go on from the pod's status: containers that ran count as killed, by their restart policy."""
    records = records_of(pod)
    status = pod.get("status") or {}
    known = {
        entry["name"]: entry
        for entry in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    }
    for record in records:
        if record.name in known:
            _resume(record, known[record.name])
    if any(not record.done for record in records if record.role is Role.MAIN):
        _run_init_again(records)
    return records


def _resume(record: ContainerRecord, known: Object) -> None:
    record.restart_count = known.get("restartCount", 0)
    record.container_id = known.get("containerID", "")
    ended = _end(known)
    if ended is None:
        return
    if restarts(record.restart_policy, ended.exit_code):
        record.last = ended
        record.restart_count += 1
    else:
        record.state, record.done = ended, True


def _end(known: Object) -> Terminated | None:
    """How the container's last run ended; None when it never ran."""
    state = known.get("state") or {}
    if running := state.get("running"):
        return Terminated(
            exit_code=KILLED_EXIT_CODE,
            reason="Error",
            started_at=running.get("startedAt", ""),
            finished_at=clock.rfc3339(),
            message=KILLED_MESSAGE,
            container_id=known.get("containerID", ""),
        )
    ended = state.get("terminated") or (known.get("lastState") or {}).get("terminated")
    if not ended:
        return None
    return Terminated(
        exit_code=ended["exitCode"],
        reason=ended.get("reason") or "",
        started_at=ended.get("startedAt") or "",
        finished_at=ended.get("finishedAt") or "",
        message=ended.get("message") or "",
        container_id=ended.get("containerID") or "",
    )


def _run_init_again(records: list[ContainerRecord]) -> None:
    # The sandbox is a new one, so whatever init containers prepared in it is gone.
    fresh = {record.name: record for record in records if record.role is Role.INIT and record.done}
    for record in fresh.values():
        if isinstance(record.state, Terminated) and record.state.exit_code == 0:
            record.last, record.done = record.state, False
            record.restart_count += 1
