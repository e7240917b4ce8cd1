"""What the pods of all stages share: hardening, scratch space, environment."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune_operator.api import names
from finetune_operator.api.resources import NodeSelector, Tolerations
from finetune_operator.build import layout
from finetune_operator.build.metadata import pod_annotations
from finetune_operator.build.mount import Mount, volume_mounts, volumes
from finetune_operator.build.requests import gpu_resources
from finetune_operator.build.types import JobView, Manifest
from finetune_operator.settings import Settings

USER_ID = 65532
"""The images' own user, the customary "nonroot"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePod:
    """What differs between the pods of the stages."""

    stage: str
    """prepare, train, merge or serve; also the container's name."""
    image: str
    command: list[str]
    resources: Manifest
    mounts: list[Mount]
    environment: list[Manifest] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    node_selector: NodeSelector | None = None
    tolerations: Tolerations | None = None
    container: Manifest = field(default_factory=dict)
    """Further fields of the container, such as probes."""
    spec: Manifest = field(default_factory=dict)
    """Further fields of the pod, such as restartPolicy."""


def template(job: JobView, settings: Settings, pod: StagePod) -> Manifest:
    """Pod template of a stage."""
    mounts = [*pod.mounts, _config_mount(job), *_scratch_mounts()]
    annotations = settings.pods.annotations | pod_annotations(job) | pod.annotations
    metadata: Manifest = {"labels": settings.pods.labels | names.labels(job.name, pod.stage) | pod.labels}
    return {
        "metadata": metadata | ({"annotations": annotations} if annotations else {}),
        "spec": {
            "serviceAccountName": settings.service_account_name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _pod_security(),
            "containers": [_container(pod, settings, mounts)],
            "volumes": volumes(mounts),
            **_placement(job, settings, pod),
            **pod.spec,
        },
    }


def literal(name: str, value: str) -> Manifest:
    """An environment variable with a fixed value."""
    return {"name": name, "value": value}


def offline() -> list[Manifest]:
    """Environment of a stage that must find everything on the job's volume."""
    return [literal("HF_HUB_OFFLINE", "1"), literal("HF_HOME", "/tmp/huggingface")]  # noqa: S108  # the pod's own


def _container(pod: StagePod, settings: Settings, mounts: list[Mount]) -> Manifest:
    return {
        "name": pod.stage,
        "image": pod.image,
        "imagePullPolicy": settings.images.pull_policy.value,
        "command": pod.command,
        "env": _environment(settings, pod),
        "resources": pod.resources,
        "volumeMounts": volume_mounts(mounts),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        # A container that dies without last words still leaves the end of its log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **pod.container,
    }


def _environment(settings: Settings, pod: StagePod) -> list[Manifest]:
    own = [*_common_environment(), *pod.environment]
    taken = {entry["name"] for entry in own}
    # A name may stand only once, and the images rely on theirs.
    return [*own, *(literal(name, value) for name, value in settings.pods.environment.items() if name not in taken)]


def _common_environment() -> list[Manifest]:
    return [
        literal("PYTHONUNBUFFERED", "1"),
        literal("HOME", layout.HOME),
        # torch asks for the user's name to place its caches, and no passwd entry need exist for the uid.
        literal("USER", "finetune"),
        # torch would start a thread for every core of the node; more threads than the cores asked for wait on each
        # other and make a step several times slower. The kubelet rounds the request up to whole cores.
        {"name": "OMP_NUM_THREADS", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}},
    ]


def _pod_security() -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        # Without this the kubelet walks every file of a volume of models each time a pod starts.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _config_mount(job: JobView) -> Mount:
    source = {
        "configMap": {
            "name": names.run_config(job.name),
            "items": [{"key": layout.RUN_KEY, "path": layout.RUN_KEY}],
        }
    }
    return Mount(name="config", source=source, path=layout.CONFIG)


def _scratch_mounts() -> list[Mount]:
    return [
        Mount(name="tmp", source={"emptyDir": {}}, path="/tmp", read_only=False),  # noqa: S108  # the pod's own
        Mount(name="home", source={"emptyDir": {}}, path=layout.HOME, read_only=False),
        # NCCL and data loader workers share memory here; a container's default of 64 MiB breaks them.
        Mount(name="shm", source={"emptyDir": {"medium": "Memory"}}, path="/dev/shm", read_only=False),  # noqa: S108
    ]


def _placement(job: JobView, settings: Settings, pod: StagePod) -> Manifest:
    gpus = gpu_resources(pod.resources)
    chosen = {
        "imagePullSecrets": [{"name": secret} for secret in settings.images.pull_secrets],
        "nodeSelector": (settings.gpu.node_selector if gpus else {}) | (pod.node_selector or {}),
        "tolerations": _tolerations(settings, pod, gpus),
        "priorityClassName": job.spec.resources.priority_class_name,
        "runtimeClassName": settings.gpu.runtime_class_name if gpus else None,
    }
    return {key: value for key, value in chosen.items() if value}


def _tolerations(settings: Settings, pod: StagePod, gpus: list[str]) -> list[Manifest]:
    # GPU nodes are tainted with the name of their resource by custom; not every cluster runs the admission plugin
    # ExtendedResourceToleration, which would add this toleration.
    customary = [{"key": gpu, "operator": "Exists", "effect": "NoSchedule"} for gpu in gpus]
    configured = [toleration.to_manifest() for toleration in settings.gpu.tolerations] if gpus else []
    asked = [toleration.to_manifest() for toleration in pod.tolerations or []]
    every = [*customary, *configured, *asked]
    return [toleration for index, toleration in enumerate(every) if toleration not in every[:index]]
