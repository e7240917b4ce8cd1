"""Every child that is built, for jobs that use every part of the API."""

from __future__ import annotations

import sys
from typing import Any

from finetune_operator.api.delivery import Serving
from finetune_operator.api.manifest_yaml import dump_all
from finetune_operator.build import (
    claim,
    config_map,
    deployment,
    disruption_budget,
    headless_service,
    merge_job,
    prepare_job,
    service,
    train_job,
)
from finetune_operator.build.types import JobView, Manifest
from finetune_operator.settings import Settings
from manifest_builders import CERTIFICATE, a_job

SETTINGS = Settings.model_validate(
    {
        "images": {"pullSecrets": ["registry"]},
        "storage": {"storageClassName": "fast"},
        "cache": {"claim": "models"},
    }
)
EVERYTHING: dict[str, Any] = {
    "model": {"source": "pvc://shared/qwen", "tokenSecret": {"name": "hub"}},
    "datasets": [
        {"source": "pvc://chats/chats.jsonl"},
        {"source": "configmap://tiny/identity.json"},
        {"source": "oci://registry.example/chats:1"},
        {"source": "s3://lake/chats", "tokenSecret": {"name": "lake"}},
    ],
    "tracking": {"wandb": {"project": "p", "apiKeySecret": {"name": "wandb"}}},
    "merge": {"push": {"target": "hf://org/tuned", "tokenSecret": {"name": "push"}}},
    "serving": {
        "mode": "Adapter",
        "apiKeySecret": {"name": "clients", "key": "key"},
        "nodeSelector": {"gpu": "h200"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
    },
    "storage": {"claim": "shared"},
    "resources": {
        "nodes": 2,
        "gpusPerNode": 8,
        "gpuResourceName": "nvidia.com/mig-3g.71gb",
        "queue": "gpus",
        "priorityClassName": "urgent",
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    },
}
SPECS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": EVERYTHING,
    "a model in an image": {"model": {"source": "oci://registry.example/models/qwen:V1@sha256:0f"}},
    "its own claim, on the CPU": {
        "storage": {"size": "1Gi", "storageClassName": "slow", "retention": "Delete"},
        "resources": {"gpusPerNode": 0, "cpu": "500m", "memory": "1Gi"},
        "serving": {"gpus": 0, "replicas": 0},
        "suspend": True,
    },
}


def children(job: JobView) -> list[Manifest]:
    """One of each kind and stage."""
    return [
        config_map.build(job, SETTINGS, CERTIFICATE),
        claim.build(job, SETTINGS),
        prepare_job.build(job, SETTINGS, has_cache=True),
        train_job.build(job, SETTINGS, 12, "operator-system"),
        headless_service.build(job, 12),
        merge_job.build(job, SETTINGS),
        deployment.build(job, SETTINGS, job.spec.serving or Serving(), replicas=2),
        service.build(job),
        disruption_budget.build(job),
    ]


def pod_templates(manifests: list[Manifest]) -> list[Manifest]:
    return [child["spec"]["template"] for child in manifests if child["kind"] in ("Job", "Deployment")]


def main() -> None:
    """Print every child of every such job as YAML, for linters."""
    for name, spec in SPECS.items():
        job = a_job(name.replace(" ", "-").lower()).with_spec(**spec).job()
        sys.stdout.write("---\n" + dump_all(children(job)))


if __name__ == "__main__":
    main()
