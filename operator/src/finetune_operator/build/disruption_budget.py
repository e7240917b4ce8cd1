"""PodDisruptionBudget of the pods that serve the model."""

from __future__ import annotations

from finetune_operator.api import names
from finetune_operator.build.metadata import metadata
from finetune_operator.build.service import STAGE
from finetune_operator.build.types import JobView, Manifest


def build(job: JobView) -> Manifest:
    """The budget: a node that is drained takes one pod at a time. Only for several pods, as the only one could never go."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(job, names.serve(job.name), STAGE),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.labels(job.name, STAGE)},
            # A pod that does not answer is no loss, and must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
