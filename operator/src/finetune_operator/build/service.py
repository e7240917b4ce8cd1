"""Service in front of the pods that serve the model."""

from __future__ import annotations

from finetune_operator.api import names
from finetune_operator.build.metadata import metadata
from finetune_operator.build.types import JobView, Manifest

STAGE = "serve"
PORT = 8000


def build(job: JobView) -> Manifest:
    """The Service."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, names.serve(job.name), STAGE),
        "spec": {
            "type": "ClusterIP",
            "selector": names.labels(job.name, STAGE),
            "ports": [
                {"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"},
            ],
        },
    }


def url(job: JobView) -> str:
    """Base URL of the OpenAI-compatible endpoint inside the cluster."""
    return f"http://{names.serve(job.name)}.{job.namespace}.svc:{PORT}/v1"
