"""What the chart's values may hold. `finetune_operator.chart_schema` writes values.yaml, its schema and its table from this."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from finetune_operator.api.base import ApiModel, DnsLabel, DnsSubdomain, Quantity
from finetune_operator.api.resources import LabelKey, LabelValue, NodeSelector, Tolerations
from finetune_operator.settings import PullPolicy, Settings

KubernetesObject = dict[str, Any]
"""A part of a pod that the API server itself checks."""
Annotations = dict[str, str]
# Empty means that the chart chooses.
Peers = Annotated[list[KubernetesObject], Field(max_length=64)]
"""Entries of `from` or `to` of a NetworkPolicy."""
Cidr = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
OptionalDnsLabel = Annotated[str, StringConstraints(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")]


class Image(ApiModel):
    """The operator's own image."""

    repository: str = Field(default="finetune-operator/operator", min_length=1)
    """Registry and name of the image."""
    tag: str = Field(default="", pattern=r"^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$")
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


class ServiceMonitor(ApiModel):
    """A ServiceMonitor, which has the Prometheus Operator scrape the operator."""

    enabled: bool = False
    """Make it. The cluster needs the Prometheus Operator's definitions."""
    interval: str = Field(default="30s", pattern=r"^([0-9]+(ms|s|m|h))+$")
    """How often."""
    labels: Annotations = {}
    """Further labels, by which the Prometheus in your cluster chooses what it scrapes."""


class PrometheusRule(ApiModel):
    """A PrometheusRule with the alerts of docs/monitoring.md."""

    enabled: bool = False
    """Make it. The cluster needs the Prometheus Operator's definitions."""
    labels: Annotations = {}
    """Further labels, by which the Prometheus in your cluster chooses its rules."""
    runbook: str = Field(default="docs/monitoring.md", min_length=1)
    """Where docs/monitoring.md can be read: each alert links to its heading there."""


class Dashboard(ApiModel):
    """A ConfigMap with the dashboard, which Grafana's sidecar loads."""

    enabled: bool = False
    """Make it."""
    labels: Annotations = {"grafana_dashboard": "1"}
    """Labels by which the sidecar finds it."""


class Metrics(ApiModel):
    """Figures for Prometheus. The operator always shows them under /metrics on port 8080."""

    service_monitor: ServiceMonitor = ServiceMonitor()
    """A ServiceMonitor, which has the Prometheus Operator scrape the operator."""
    prometheus_rule: PrometheusRule = PrometheusRule()
    """A PrometheusRule with the alerts of docs/monitoring.md."""
    dashboard: Dashboard = Dashboard()
    """A ConfigMap with the dashboard, which Grafana's sidecar loads."""


class OperatorPolicy(ApiModel):
    """NetworkPolicy of the operator's pod."""

    enabled: bool = False
    """Make it: only training pods reach the progress port, and the operator reaches DNS and the API server only."""
    metrics_from: Peers = []
    """Who may read the metrics. Empty: everybody."""
    api_server_ports: list[Port] = [443, 6443]
    """Ports that the API server listens on, before and behind the Service `kubernetes`."""


class JobPolicies(ApiModel):
    """NetworkPolicies of the jobs' pods: only prepare and merge pods reach the world."""

    namespaces: list[DnsLabel] = []
    """Namespaces that get them; they have to exist. Empty: none."""
    except_addresses: list[Cidr] = [
        "169.254.169.254/32",
        "169.254.170.2/32",
        "169.254.170.23/32",
        "100.100.100.200/32",
        "fd00:ec2::23/128",
        "fd00:ec2::254/128",
    ]
    """Addresses that prepare and merge pods never reach: a cloud's metadata service gives out the node's credentials."""
    train_egress: list[KubernetesObject] = []
    """Further egress rules of training pods, such as to a tracking server. They reach DNS, the operator and each other."""
    serve_from: Peers = []
    """Who may ask a served model. Empty: everybody."""


class NetworkPolicies(ApiModel):
    """NetworkPolicies. The cluster's network has to enforce them."""

    dns: Peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    """Where the cluster's DNS servers are."""
    dns_ports: list[Port] = [53]
    """Ports that they listen on."""
    operator: OperatorPolicy = OperatorPolicy()
    """NetworkPolicy of the operator's pod."""
    jobs: JobPolicies = JobPolicies()
    """NetworkPolicies of the jobs' pods: only prepare and merge pods reach the world."""


class Values(ApiModel):
    """Values of the chart."""

    fullname_override: OptionalDnsLabel = ""
    """Name of the objects of the chart. Empty: made from the release's name."""
    common_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = {}
    """Further labels of every object of the chart. For the jobs' pods: settings.pods.labels."""
    image_registry: str = Field(default="", max_length=253, pattern=r"^([a-z0-9][a-zA-Z0-9._:/-]*[a-zA-Z0-9])?$")
    """Registry that all images are pulled from, the operator's and the stages'. Empty: as each is named."""
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
        requests={"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
        limits={"memory": "512Mi", "ephemeral-storage": "256Mi"},
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
    metrics: Metrics = Metrics()
    """Figures for Prometheus. The operator always shows them under /metrics on port 8080."""
    network_policy: NetworkPolicies = NetworkPolicies()
    """NetworkPolicies. The cluster's network has to enforce them."""
    settings: Settings = Settings()
    """Settings of the operator. A change restarts it; running jobs are not touched by that."""
