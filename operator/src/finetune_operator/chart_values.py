"""What the chart's values may hold. `finetune_operator.chart_schema` writes values.yaml, its schema and its table from this."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from finetune_operator.api.base import ApiModel, DnsSubdomain, Quantity
from finetune_operator.api.resources import NodeSelector, Tolerations
from finetune_operator.settings import PullPolicy, Settings

KubernetesObject = dict[str, Any]
"""A part of a pod that the API server itself checks."""
Annotations = dict[str, str]
# Empty means that the chart chooses.
OptionalDnsLabel = Annotated[str, StringConstraints(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")]


class Image(ApiModel):
    """The operator's own image."""

    repository: str = Field(default="finetune-operator/operator", min_length=1)
    """Registry and name of the image."""
    tag: str = ""
    """Tag. Empty: the chart's appVersion."""
    digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """Digest, such as sha256:…; wins over the tag."""
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    """When the image is pulled."""


class PullSecret(ApiModel):
    """A Secret that the kubelet pulls images with."""

    name: DnsSubdomain
    """Name of the Secret, in the operator's namespace."""


class CustomResourceDefinitions(ApiModel):
    """The CustomResourceDefinition of FineTuneJob."""

    install: bool = True
    """Install and upgrade the CRD with the chart. It stays when the release is uninstalled."""
    annotations: Annotations = {}
    """Further annotations of the CRD."""


class ServiceAccount(ApiModel):
    """The identity that the operator acts under."""

    create: bool = True
    """Make the ServiceAccount."""
    name: OptionalDnsLabel = ""
    """Its name. Empty: the release's full name."""
    annotations: Annotations = {}
    """Annotations of the ServiceAccount."""


class Rbac(ApiModel):
    """Rights of the operator and of users."""

    create: bool = True
    """Make the operator's roles and bindings."""
    aggregate: bool = True
    """Add FineTuneJob to the built-in ClusterRoles view, edit and admin."""


class ComputeResources(ApiModel):
    """Requests and limits of a container."""

    requests: dict[str, int | Quantity] = {}
    """What the scheduler sets aside."""
    limits: dict[str, int | Quantity] = {}
    """What the container may use at most."""


class Values(ApiModel):
    """Values of the chart."""

    fullname_override: OptionalDnsLabel = ""
    """Name of the objects of the chart. Empty: made from the release's name."""
    image: Image = Image()
    """The operator's own image."""
    image_pull_secrets: list[PullSecret] = []
    """Secrets, in the operator's namespace, that its image is pulled with."""
    crds: CustomResourceDefinitions = CustomResourceDefinitions()
    """The CustomResourceDefinition of FineTuneJob."""
    service_account: ServiceAccount = ServiceAccount()
    """The identity that the operator acts under."""
    rbac: Rbac = Rbac()
    """Rights of the operator and of users."""
    resources: ComputeResources = ComputeResources(
        requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "512Mi"}
    )
    """Requests and limits of the operator's container."""
    node_selector: NodeSelector = {}
    """Labels of the nodes that the operator may run on."""
    tolerations: Tolerations = []
    """Taints that the operator's pod bears."""
    affinity: KubernetesObject = {}
    """Affinity of the operator's pod."""
    priority_class_name: str = Field(default="", max_length=253)
    """PriorityClass of the operator's pod. Empty: the cluster's default."""
    pod_annotations: Annotations = {}
    """Further annotations of the operator's pod."""
    pod_labels: Annotations = {}
    """Further labels of the operator's pod."""
    pod_security_context: KubernetesObject = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    """Security context of the pod. No user id is set: the image's own, or the one that the platform assigns."""
    security_context: KubernetesObject = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    """Security context of the container."""
    settings: Settings = Settings()
    """Settings of the operator. A change restarts it; running jobs are not touched by that."""
