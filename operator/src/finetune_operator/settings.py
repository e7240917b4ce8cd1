"""What a platform team sets for the whole operator. The chart's values.schema.json is generated from this model."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, StringConstraints

from finetune_operator.api.base import ApiModel, DnsLabel, DnsSubdomain, Quantity
from finetune_operator.api.resources import LabelKey, LabelValue, NodeSelector, Tolerations
from finetune_operator.api.run import Hub, WatchdogBounds

_NO_OTHER_KEYS = {"additionalProperties": False}
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]


class PullPolicy(enum.StrEnum):
    """When the kubelet pulls an image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class Images(ApiModel):
    """Images of the stages. Give digests in production."""

    trainer: str = Field(default="finetune-operator/trainer:0.1.0", min_length=1)
    """Image of the prepare and training pods."""
    merger: str = Field(default="finetune-operator/merger:0.1.0", min_length=1)
    """Image of the merge pods."""
    server: str = Field(default="finetune-operator/server:0.1.0", min_length=1)
    """Image of the serving pods, CPU engine."""
    vllm: str = Field(default="finetune-operator/server-vllm:0.1.0", min_length=1)
    """Image of the serving pods with engine VLLM: images/server/Dockerfile, target vllm."""
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    """When images are pulled."""
    pull_secrets: list[DnsSubdomain] = []
    """Secrets, in each job's namespace, that the kubelet pulls images with."""


class StageResources(ApiModel):
    """What the pods of a stage request."""

    cpu: Quantity
    """CPU requested."""
    memory: Quantity
    """Memory requested, and the limit."""


class Stages(ApiModel):
    """Requests of the stages that the job's own resources do not set."""

    prepare: StageResources = StageResources(cpu="1", memory="4Gi")
    """The prepare pod."""
    train: StageResources = StageResources(cpu="4", memory="32Gi")
    """The training pods, where the job's resources do not say."""
    merge: StageResources = StageResources(cpu="2", memory="16Gi")
    """The merge pod."""
    serve: StageResources = StageResources(cpu="2", memory="16Gi")
    """The serving pods, where the job's serving block does not say."""


class GpuPods(ApiModel):
    """What holds for the pods that ask for GPUs, besides what the job says."""

    node_selector: NodeSelector = {}
    """Labels of the nodes. A job that asks for another value of the same label has its way."""
    runtime_class_name: DnsSubdomain | None = None
    """RuntimeClass, such as nvidia, where GPUs need one. Default: the node's own runtime."""
    tolerations: Tolerations = []
    """Taints that the pods bear. The one that bears the name of their GPU resource, such as nvidia.com/gpu, they always bear."""
    memory: Quantity | None = None
    """Memory of one GPU, such as 80Gi, for jobs that do not say. Default: unknown, so that no job is refused for it."""


class JobPods(ApiModel):
    """What all pods of the jobs bear, besides what the operator gives them itself."""

    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = {}
    """Labels, such as a cost centre's."""
    annotations: Annotated[dict[LabelKey, str], Field(max_length=16)] = {}
    """Annotations, such as karpenter.sh/do-not-disrupt or sidecar.istio.io/inject."""
    environment: Annotated[dict[VariableName, str], Field(max_length=32, json_schema_extra=_NO_OTHER_KEYS)] = {}
    """Environment variables, such as HTTPS_PROXY and NO_PROXY. Not for secrets."""


class Certificates(ApiModel):
    """Authorities that prepare, training and merge pods trust: for mirrors and trackers with certificates of your own."""

    config_map: DnsSubdomain | None = None
    """ConfigMap, in each job's namespace, with every authority that is to be trusted. Default: the images' own authorities."""
    key: str = Field(default="ca-bundle.crt", max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")
    """Its key that holds the certificates, in PEM."""


class ProgressEndpoint(ApiModel):
    """Where trainers report how far they are."""

    service: DnsLabel = "finetune-operator"
    """Service in front of the operator."""
    port: int = Field(default=8443, ge=1, le=65535)
    """Port of the Service and of the operator's container."""


class ClaimDefaults(ApiModel):
    """The claim that the operator makes where a job does not name its own."""

    size: Quantity = "100Gi"
    """Size of the claim."""
    storage_class_name: DnsSubdomain | None = None
    """StorageClass. Default: the cluster's default class."""


class Cache(ApiModel):
    """What jobs share of what they download."""

    claim: DnsSubdomain | None = None
    """Claim, in each job's namespace, with access mode ReadWriteMany. A namespace without it has no cache. Default: no cache."""


class Settings(ApiModel):
    """All settings of the operator, as in the ConfigMap that the chart writes."""

    images: Images = Images()
    """Images of the stages."""
    stages: Stages = Stages()
    """Requests of the stages that the job's own resources do not set."""
    gpu: GpuPods = GpuPods()
    """What holds for the pods that ask for GPUs, besides what the job says."""
    pods: JobPods = JobPods()
    """What all pods of the jobs bear, besides what the operator gives them itself."""
    certificates: Certificates = Certificates()
    """Authorities that prepare, training and merge pods trust: for mirrors and trackers with certificates of your own."""
    progress: ProgressEndpoint = ProgressEndpoint()
    """Where trainers report how far they are."""
    storage: ClaimDefaults = ClaimDefaults()
    """The claim that the operator makes where a job does not name its own."""
    hub: Hub = Hub()
    """Where models and datasets are downloaded from: mirrors, object stores, air-gapped clusters."""
    patience_seconds: int = Field(default=300, ge=0, le=3600)
    """How long prepare goes on asking a hub or store that cannot be reached or answers with a fault of its own."""
    cache: Cache = Cache()
    """What jobs share of what they download."""
    watchdog: WatchdogBounds = WatchdogBounds()
    """How long training may stand still before it is ended and tried again."""
    service_account_name: DnsSubdomain = "default"
    """ServiceAccount of the job's pods, in the job's namespace. It needs no rights: no API token is mounted."""
    namespaces: list[DnsLabel] = []
    """Namespaces to watch. Empty: all."""
    workers: int = Field(default=4, ge=1, le=64)
    """Jobs that are reconciled at the same time."""
    resync_seconds: int = Field(default=120, ge=5, le=3600)
    """Every job is looked at again at least this often, whatever events were missed."""
    retry_delay_seconds: int = Field(default=10, ge=0, le=3600)
    """Pause before the second training attempt; it doubles with each further one, up to 10 minutes."""
    log_lines: int = Field(default=20, ge=0, le=200)
    """Last log lines of a failed container that the Failed condition carries."""

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read the settings file. Raises pydantic.ValidationError naming every wrong field."""
        return cls.model_validate(yaml.safe_load(path.read_text()) or {}, by_alias=True, by_name=False)
