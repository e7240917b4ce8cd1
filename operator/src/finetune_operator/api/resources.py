"""What the pods of a job run on."""

from __future__ import annotations

import enum
from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_operator.api.base import ApiModel, DnsLabel, DnsSubdomain, Quantity, Rule

LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=317)]
LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")]
NodeSelector = Annotated[dict[LabelKey, LabelValue], Field(max_length=16)]


class TolerationOperator(enum.StrEnum):
    """How a toleration matches a taint."""

    EQUAL = "Equal"
    EXISTS = "Exists"


class TaintEffect(enum.StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """Lets the pods run on nodes with a matching taint."""

    # The API server asks this of pods, hours later, when the first one that trains is made.
    rules = (
        Rule(
            cel="has(self.key) || self.operator == 'Exists'",
            message="without a key all taints match, which is to be said with operator Exists",
            holds=lambda wanted: wanted.key is not None or wanted.operator == TolerationOperator.EXISTS,
            field=".operator",
        ),
        Rule(
            cel="!has(self.value) || self.operator == 'Equal'",
            message="operator Exists compares no value: leave the value out, or use operator Equal",
            holds=lambda wanted: wanted.value is None or wanted.operator == TolerationOperator.EQUAL,
            field=".value",
        ),
        Rule(
            cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            message="only a taint with effect NoExecute is borne for a time: set effect NoExecute, or leave this out",
            holds=lambda wanted: wanted.toleration_seconds is None or wanted.effect == TaintEffect.NO_EXECUTE,
            field=".tolerationSeconds",
        ),
    )

    key: str | None = Field(
        default=None,
        max_length=317,
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
    )
    """Key of the taint; absent with operator Exists matches all."""
    operator: TolerationOperator = TolerationOperator.EQUAL
    """How the value is compared."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: TaintEffect | None = None
    """Effect of the taint; absent matches all."""
    toleration_seconds: int | None = Field(default=None, ge=0)
    """How long a NoExecute taint is borne."""


Tolerations = Annotated[list[Toleration], Field(max_length=16)]


class Resources(ApiModel):
    """What the training pods ask for."""

    rules = (
        Rule(
            cel="!has(self.priorityClassName) || !self.priorityClassName.startsWith('system-')",
            message="system- classes are for what the cluster itself needs: such pods may evict any other",
            holds=lambda resources: not (resources.priority_class_name or "").startswith("system-"),
            field=".priorityClassName",
        ),
    )

    nodes: int = Field(default=1, ge=1, le=512)
    """Pods that train together, one a node."""
    gpus_per_node: int = Field(default=1, ge=0, le=64)
    """GPUs for each pod. 0 trains on the CPU, which suits tests and very small models."""
    gpu_resource_name: str = Field(
        default="nvidia.com/gpu", min_length=1, max_length=253, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9_.-]+$"
    )
    """Name of the extended resource, such as nvidia.com/gpu, nvidia.com/mig-3g.71gb or amd.com/gpu."""
    gpu_memory: Quantity | None = None
    """Memory of one GPU, such as 80Gi: a job that cannot fit is refused before it takes any. Default: the operator's setting."""
    cpu: Quantity | None = None
    """CPU that each training pod requests."""
    memory: Quantity | None = None
    """Memory that each training pod requests and is limited to."""
    node_selector: NodeSelector | None = None
    """Labels of the nodes that may train."""
    tolerations: Tolerations | None = None
    """Taints that the training pods bear."""
    queue: DnsSubdomain | None = None
    """Kueue LocalQueue that admits the job's pods."""
    priority_class_name: DnsSubdomain | None = None
    """PriorityClass of the job's pods."""

    @property
    def gpus(self) -> int:
        """GPUs of all nodes together."""
        return self.nodes * self.gpus_per_node


class Retention(enum.StrEnum):
    """What happens to the claim that the operator made when the job is deleted."""

    RETAIN = "Retain"
    """It stays, with the model on it."""
    DELETE = "Delete"
    """It is deleted with the job."""


class AccessMode(enum.StrEnum):
    """How many nodes can mount the claim."""

    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_MANY = "ReadWriteMany"


class Storage(ApiModel):
    """The volume that holds everything that the job makes."""

    rules = (
        Rule(
            cel="!has(self.claim) || !(has(self.size) || has(self.storageClassName))",
            message="claim names an existing PersistentVolumeClaim; size and storageClassName are for one that the operator makes",
            holds=lambda storage: (
                storage.claim is None or (storage.size is None and storage.storage_class_name is None)
            ),
            field=".claim",
        ),
    )

    claim: DnsLabel | None = None
    """An existing PersistentVolumeClaim. The job writes to the folder on it that bears the job's name."""
    size: Quantity | None = None
    """Size of the claim that the operator makes. Default: the operator's setting."""
    storage_class_name: DnsSubdomain | None = None
    """StorageClass of that claim. Default: the cluster's default class."""
    access_mode: AccessMode = AccessMode.READ_WRITE_ONCE
    """ReadWriteMany is needed for more than one node, and to serve on another node than the one that trained."""
    retention: Retention = Retention.RETAIN
    """What happens to the claim that the operator made when the job is deleted."""
