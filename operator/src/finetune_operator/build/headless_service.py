"""Headless Service through which the nodes of one training attempt find each other."""

from __future__ import annotations

from finetune_operator.api import names
from finetune_operator.build.batch_job import attempt_label
from finetune_operator.build.metadata import metadata
from finetune_operator.build.types import JobView, Manifest

STAGE = "train"


def name(job: JobView, attempt: int) -> str:
    """Name of the Service, and the subdomain of the attempt's pods."""
    return names.train(job.name, attempt)


def build(job: JobView, attempt: int) -> Manifest:
    """The Service: no address of its own, one DNS name a pod."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, name(job, attempt), STAGE),
        "spec": {
            "clusterIP": "None",
            "selector": names.labels(job.name, STAGE) | attempt_label(attempt),
            # The nodes look for each other before any of them could be ready.
            "publishNotReadyAddresses": True,
        },
    }
