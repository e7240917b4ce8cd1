"""What is known of a running pod: the record of each of its containers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from finetune_devcluster.node.settings import Object


class Role(Enum):
    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"


@dataclass(frozen=True)
class Waiting:
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Running:
    started_at: str


@dataclass(frozen=True)
class Terminated:
    exit_code: int
    reason: str
    started_at: str
    finished_at: str
    message: str = ""
    container_id: str = ""


State = Waiting | Running | Terminated


@dataclass
class ContainerRecord:
    """One container's life so far. `done`: it has ended and will not be started again."""

    spec: Object
    role: Role
    restart_policy: str
    state: State = field(default_factory=lambda: Waiting("PodInitializing"))
    last: Terminated | None = None
    restart_count: int = 0
    container_id: str = ""
    started: bool = False
    probe_ready: bool = False
    done: bool = False

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def ready(self) -> bool:
        if self.role is Role.INIT:
            return isinstance(self.state, Terminated) and self.state.exit_code == 0
        return isinstance(self.state, Running) and self.started and self.probe_ready

    @property
    def failed(self) -> bool:
        """It has ended for good, and not with exit code 0."""
        return self.done and isinstance(self.state, Terminated) and self.state.exit_code != 0


def records_of(pod: Object) -> list[ContainerRecord]:
    """Fresh records for all containers of the pod, init containers first."""
    spec = pod["spec"]
    policy = spec.get("restartPolicy", "Always")
    init = spec.get("initContainers") or []
    first = Waiting("PodInitializing" if init else "ContainerCreating")
    main_records = [
        ContainerRecord(container, Role.MAIN, container.get("restartPolicy") or policy, state=first)
        for container in spec["containers"]
    ]
    return [_init_record(container, policy) for container in init] + main_records


def _init_record(container: Object, pod_policy: str) -> ContainerRecord:
    if container.get("restartPolicy") == "Always":
        return ContainerRecord(container, Role.SIDECAR, "Always")
    # An init container that succeeded is never run again, whatever the pod's policy.
    return ContainerRecord(container, Role.INIT, "Never" if pod_policy == "Never" else "OnFailure")


def restarts(policy: str, exit_code: int) -> bool:
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)
