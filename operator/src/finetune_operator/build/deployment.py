"""Deployment that serves the model."""

from __future__ import annotations

import hashlib
import json

from finetune_operator.api import names
from finetune_operator.api.base import GROUP
from finetune_operator.api.delivery import Engine, Serving, ServingMode
from finetune_operator.build import inputs, layout, pod, secrets
from finetune_operator.build.metadata import workload_metadata
from finetune_operator.build.mount import Mount
from finetune_operator.build.requests import requests
from finetune_operator.build.service import PORT, STAGE
from finetune_operator.build.storage import job_mount
from finetune_operator.build.types import JobView, Manifest
from finetune_operator.settings import Settings

SPEC_HASH_ANNOTATION = f"{GROUP}/spec-hash"
"""Hash of the Deployment's spec as the operator wants it: tells whether a live Deployment is up to date."""
SERVED_ANNOTATION = f"{GROUP}/served"
"""What run.json tells the server to load. A change of it has to start new pods, which read run.json anew."""
_PROBE_SECONDS = 10
_ANSWER_SECONDS = 20
"""How long a completion of one token may take: a CPU under load needs some."""
_IMAGE_PULL_SECONDS = 600


def build(job: JobView, settings: Settings, serving: Serving, *, replicas: int) -> Manifest:
    """The Deployment, with ``replicas`` pods."""
    spec = _spec(job, settings, serving, replicas)
    metadata = workload_metadata(job, names.serve(job.name), STAGE)
    metadata["annotations"] = metadata.get("annotations", {}) | {SPEC_HASH_ANNOTATION: _hash(spec)}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def _spec(job: JobView, settings: Settings, serving: Serving, replicas: int) -> Manifest:
    return {
        "replicas": replicas,
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": serving.startup_seconds + _IMAGE_PULL_SECONDS,
        "selector": {"matchLabels": names.labels(job.name, STAGE)},
        # GPUs are scarce: on a full cluster a surge pod would wait for ever for the one that it is to replace.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        "template": pod.template(job, settings, _pod(job, settings, serving)),
    }


def _pod(job: JobView, settings: Settings, serving: Serving) -> pod.StagePod:
    engine = _engine(serving)
    return pod.StagePod(
        stage=STAGE,
        image=settings.images.vllm if engine is Engine.VLLM else settings.images.server,
        command=["finetune-server", "serve", "--run", layout.RUN_FILE],
        resources=requests(
            settings.stages.serve,
            cpu=serving.cpu,
            memory=serving.memory,
            gpu_resource=job.spec.resources.gpu_resource_name,
            gpus=serving.gpus,
        ),
        mounts=_mounts(job, serving),
        environment=pod.offline(),
        annotations={SERVED_ANNOTATION: f"{serving.mode.value}/{engine.value}"},
        node_selector=serving.node_selector,
        tolerations=serving.tolerations,
        container={"ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}], **_probes(serving)},
        spec={"terminationGracePeriodSeconds": 30},
    )


def _engine(serving: Serving) -> Engine:
    if serving.engine is not Engine.AUTO:
        return serving.engine
    return Engine.VLLM if serving.gpus else Engine.TRANSFORMERS


def _mounts(job: JobView, serving: Serving) -> list[Mount]:
    # Only an un-merged adapter needs its base model, which may be no more than a link to where the user keeps it.
    base = [job.spec.model.source] if serving.mode is ServingMode.ADAPTER else []
    return [job_mount(job, read_only=True), *inputs.mounts(job, base), *secrets.of_serve(job.spec)]


def _probes(serving: Serving) -> Manifest:
    # The probe asks for a completion, so that ready means: the model has answered.
    command = ["finetune-server", "probe", "--run", layout.RUN_FILE]
    probe = {
        "exec": {"command": [*command, "--timeout", str(_ANSWER_SECONDS)]},
        "periodSeconds": _PROBE_SECONDS,
        # Longer than the probe's own limit, so that it can still say what was wrong.
        "timeoutSeconds": _ANSWER_SECONDS + 5,
    }
    tries = -(-serving.startup_seconds // _PROBE_SECONDS)
    return {
        "startupProbe": probe | {"failureThreshold": tries},
        "readinessProbe": probe | {"failureThreshold": 3},
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
    }


def _hash(spec: Manifest) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
