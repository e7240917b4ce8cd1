"""Job of one training attempt."""

from __future__ import annotations

from finetune_operator.api import names
from finetune_operator.api.base import API_VERSION, PLURAL
from finetune_operator.build import batch_job, certificates, headless_service, inputs, layout, pod, secrets
from finetune_operator.build.mount import Mount
from finetune_operator.build.requests import requests
from finetune_operator.build.storage import job_mount
from finetune_operator.build.types import JobView, Manifest
from finetune_operator.settings import Settings

STAGE = "train"
RENDEZVOUS_PORT = 29500
_TOKEN_SECONDS = 3600
_GRACE_SECONDS = 120


def build(job: JobView, settings: Settings, attempt: int, operator_namespace: str) -> Manifest:
    """The training Job: a plain one for one node, an Indexed one for several.

    Kubernetes retries nothing: the nodes of an attempt have to start together, so a lost pod ends
    the attempt and the operator starts the next from the last checkpoint.
    """
    name = names.train(job.name, attempt)
    stage_pod = _pod(job, settings, attempt, operator_namespace)
    manifest = batch_job.build(
        job,
        name,
        STAGE,
        pod.template(job, settings, stage_pod),
        {**batch_job.retried_by_the_operator(STAGE), **_indexed(job)},
    )
    manifest["metadata"]["labels"] |= batch_job.attempt_label(attempt)
    return manifest


def _indexed(job: JobView) -> Manifest:
    nodes = job.spec.resources.nodes
    return {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes} if nodes > 1 else {}


def _pod(job: JobView, settings: Settings, attempt: int, operator_namespace: str) -> pod.StagePod:
    asked = job.spec.resources
    return pod.StagePod(
        stage=STAGE,
        image=settings.images.trainer,
        command=["finetune-trainer", "train", "--run", layout.RUN_FILE],
        resources=requests(
            settings.stages.train,
            cpu=asked.cpu,
            memory=asked.memory,
            gpu_resource=asked.gpu_resource_name,
            gpus=asked.gpus_per_node,
        ),
        mounts=[*_mounts(job), *certificates.mounts(settings)],
        environment=[
            *pod.offline(),
            *_progress(job, settings, operator_namespace),
            *_rendezvous(job, attempt),
            *certificates.environment(settings),
        ],
        labels=batch_job.attempt_label(attempt),
        node_selector=asked.node_selector,
        tolerations=asked.tolerations,
        spec={
            "restartPolicy": "Never",
            # Time to write a checkpoint when told to stop; the default of 30 s is too short for a full model.
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            **({"subdomain": headless_service.name(job, attempt)} if asked.nodes > 1 else {}),
        },
    )


def _mounts(job: JobView) -> list[Mount]:
    return [
        job_mount(job),
        *inputs.mounts(job, inputs.weights(job.spec)),
        *secrets.of_train(job.spec),
        _certificate_mount(job),
        _token_mount(),
    ]


def _certificate_mount(job: JobView) -> Mount:
    items = [{"key": layout.CERTIFICATE_KEY, "path": layout.CERTIFICATE_KEY}]
    source = {"configMap": {"name": names.run_config(job.name), "items": items}}
    return Mount(name="progress", source=source, path=layout.PROGRESS)


def _token_mount() -> Mount:
    token = {
        "audience": names.PROGRESS_AUDIENCE,
        "expirationSeconds": _TOKEN_SECONDS,
        "path": layout.TOKEN_FILE,
    }
    source = {"projected": {"sources": [{"serviceAccountToken": token}]}}
    return Mount(name="token", source=source, path=layout.TOKEN)


def _progress(job: JobView, settings: Settings, operator_namespace: str) -> list[Manifest]:
    """Where the Hugging Face Trainer's own Kubeflow callback reports to."""
    host = f"{settings.progress.service}.{operator_namespace}.svc:{settings.progress.port}"
    path = f"apis/{API_VERSION}/namespaces/{job.namespace}/{PLURAL}/{job.name}/progress"
    return [
        pod.literal("KUBEFLOW_TRAINER_SERVER_URL", f"https://{host}/{path}"),
        pod.literal("KUBEFLOW_TRAINER_SERVER_CA_CERT", f"{layout.PROGRESS}/{layout.CERTIFICATE_KEY}"),
        pod.literal("KUBEFLOW_TRAINER_SERVER_TOKEN", f"{layout.TOKEN}/{layout.TOKEN_FILE}"),
    ]


def _rendezvous(job: JobView, attempt: int) -> list[Manifest]:
    """torchrun's own variables, as Kubeflow's trainer sets them: node 0 of the attempt is the meeting point."""
    nodes = job.spec.resources.nodes
    if nodes == 1:
        return []
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    master = f"{names.train(job.name, attempt)}-0.{headless_service.name(job, attempt)}"
    return [
        pod.literal("PET_NNODES", str(nodes)),
        {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": index}}},
        pod.literal("PET_MASTER_ADDR", master),
        pod.literal("PET_MASTER_PORT", str(RENDEZVOUS_PORT)),
        pod.literal("NCCL_DEBUG", "WARN"),
    ]
