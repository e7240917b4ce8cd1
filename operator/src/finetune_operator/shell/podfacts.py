"""What pods say about themselves: how one ended, and why one does not run yet. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Pod = Mapping[str, Any]

UNMOUNTED_AFTER = dt.timedelta(seconds=60)
"""A container that is still being created after so long most likely waits for a volume."""
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})
# The kubelet's word for "exit code other than 0", which says less than the pod's own reason
_UNTELLING = frozenset({"", "Error", "Completed"})


@dataclass(frozen=True, slots=True)
class ContainerEnd:
    """How one container of a pod ended."""

    pod: str
    pod_uid: str
    container: str
    exit_code: int | None
    reason: str
    message: str
    finished: str
    """RFC 3339, so that it sorts as text."""
    started: str = ""
    """RFC 3339; empty where it never ran or nobody said."""

    @property
    def seconds(self) -> int | None:
        """How long it ran, where that was said."""
        if not (self.started and self.finished):
            return None
        return int((dt.datetime.fromisoformat(self.finished) - dt.datetime.fromisoformat(self.started)).total_seconds())

    @property
    def failed(self) -> bool:
        """Whether it did not end well; a pod that was evicted before it ran has no exit code and failed."""
        return self.exit_code != 0


def deciding_end(pods: Iterable[Pod], *, retried: bool = False) -> ContainerEnd | None:
    """The end that decided a Job's; None while nothing has ended.

    Pods that train together: the first failure in time drags the others down, else the last success. Pods that
    Kubernetes tried one after the other (``retried``): the last, however the earlier ones ended.
    """
    ends = [end for pod in pods for end in _ends(pod)]
    failures = [] if retried else [end for end in ends if end.failed]
    if failures:
        return min(failures, key=lambda end: end.finished)
    return max(ends, key=lambda end: end.finished, default=None)


def _ends(pod: Pod) -> list[ContainerEnd]:
    found = [_container_end(pod, status) for status in _container_statuses(pod) if _terminated(status)]
    if not any(end.failed for end in found) and _status(pod).get("phase") == "Failed":
        found.append(_pod_end(pod))
    return found


def _container_end(pod: Pod, status: Mapping[str, Any]) -> ContainerEnd:
    terminated = _terminated(status)
    reason = str(terminated.get("reason") or "")
    return ContainerEnd(
        pod=pod["metadata"]["name"],
        pod_uid=pod["metadata"]["uid"],
        container=status["name"],
        exit_code=terminated.get("exitCode"),
        reason=(_pod_reason(pod) or reason) if reason in _UNTELLING else reason,
        message=str(terminated.get("message") or ""),
        finished=str(terminated.get("finishedAt") or ""),
        started=str(terminated.get("startedAt") or ""),
    )


def _pod_end(pod: Pod) -> ContainerEnd:
    # Evicted or shut down with its node: the kubelet may never have said how the containers ended
    return ContainerEnd(
        pod=pod["metadata"]["name"],
        pod_uid=pod["metadata"]["uid"],
        container="",
        exit_code=None,
        reason=_pod_reason(pod),
        message=str(_status(pod).get("message") or ""),
        finished=str(_status(pod).get("startTime") or pod["metadata"].get("creationTimestamp") or ""),
    )


def _pod_reason(pod: Pod) -> str:
    disruption = _condition(pod, "DisruptionTarget")
    if disruption.get("status") == "True":
        return str(disruption.get("reason") or "")
    return str(_status(pod).get("reason") or "")


def waiting_reason(pods: Iterable[Pod], now: dt.datetime) -> str:
    """Why the first pod that does not run yet does not, as scheduler or kubelet put it; empty where all run."""
    reasons = (_why_pod_waits(pod, now) for pod in pods if _is_live(pod))
    return next((reason for reason in reasons if reason), "")


def _is_live(pod: Pod) -> bool:
    return _status(pod).get("phase") in ("Pending", "Running") and "deletionTimestamp" not in pod["metadata"]


def _why_pod_waits(pod: Pod, now: dt.datetime) -> str:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _joined(scheduled.get("reason"), scheduled.get("message"))
    for status in _container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") not in _STARTING:
            return _joined(waiting.get("reason"), waiting.get("message"))
        if waiting and _started_before(pod, now - UNMOUNTED_AFTER):
            return _slow_start(pod, str(waiting.get("reason")))
    return ""


def _slow_start(pod: Pod, reason: str) -> str:
    name = pod["metadata"]["name"]
    seconds = int(UNMOUNTED_AFTER.total_seconds())
    return (
        f"{reason} for more than {seconds} s: the image is large, or a Secret, ConfigMap or claim that the pod mounts "
        f"does not exist; `kubectl describe pod {name}` tells which"
    )


def _started_before(pod: Pod, moment: dt.datetime) -> bool:
    started = _status(pod).get("startTime")
    return started is not None and dt.datetime.fromisoformat(started) < moment


def _container_statuses(pod: Pod) -> list[Mapping[str, Any]]:
    status = _status(pod)
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _terminated(status: Mapping[str, Any]) -> Mapping[str, Any]:
    return (status.get("state") or {}).get("terminated") or {}


def _condition(pod: Pod, kind: str) -> Mapping[str, Any]:
    return next((entry for entry in _status(pod).get("conditions") or () if entry["type"] == kind), {})


def _status(pod: Pod) -> Mapping[str, Any]:
    return pod.get("status") or {}


def _joined(reason: Any, message: Any) -> str:
    return ": ".join(str(part) for part in (reason, message) if part)
