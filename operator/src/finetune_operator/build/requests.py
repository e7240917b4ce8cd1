"""Requests and limits of a container."""

from __future__ import annotations

from finetune_operator.build.types import Manifest
from finetune_operator.settings import StageResources


def requests(
    defaults: StageResources,
    *,
    cpu: str | None = None,
    memory: str | None = None,
    gpu_resource: str = "",
    gpus: int = 0,
) -> Manifest:
    """Resources of a container; what the job does not say comes from the stage's defaults.

    CPU is requested only: a limit throttles data loading for nothing. Memory is limited to the request, so that a
    stage that outgrows it is killed itself and not its neighbours. Extended resources stand in the limits, which
    Kubernetes takes as requests.
    """
    effective_memory = memory or defaults.memory
    limits = {"memory": effective_memory} | ({gpu_resource: str(gpus)} if gpus else {})
    return {"requests": {"cpu": cpu or defaults.cpu, "memory": effective_memory}, "limits": limits}


def gpu_resources(resources: Manifest) -> list[str]:
    """The extended resources that a container asks for, by name. Kubernetes' own resources have no domain."""
    return [name for name in resources["limits"] if "/" in name]
