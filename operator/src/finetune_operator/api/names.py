"""Names of a job's children and the labels that tie them to it. One place, so that limits can be checked."""

from __future__ import annotations

from finetune_operator.api.base import GROUP

MAX_JOB_NAME = 40
"""Longest name of a FineTuneJob: the longest child suffix and a pod's own suffix still fit into 63 characters."""

JOB_NAME_LABEL = f"{GROUP}/job"
STAGE_LABEL = f"{GROUP}/stage"
ATTEMPT_LABEL = f"{GROUP}/attempt"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGER = "finetune-operator"

PROGRESS_AUDIENCE = f"{GROUP}/progress"
"""Audience of the projected token with which a trainer reports its progress."""


def labels(job: str, stage: str) -> dict[str, str]:
    """Labels of every child of the job."""
    return {MANAGED_BY_LABEL: MANAGER, JOB_NAME_LABEL: job, STAGE_LABEL: stage}


def run_config(job: str) -> str:
    """ConfigMap with run.json and the certificate of the progress endpoint."""
    return f"{job}-run"


def volume(job: str) -> str:
    """PersistentVolumeClaim that the operator makes."""
    return f"{job}-data"


def prepare(job: str) -> str:
    """Prepare Job."""
    return f"{job}-prepare"


def train(job: str, attempt: int) -> str:
    """Training Job of one attempt; also its headless Service."""
    return f"{job}-train-{attempt}"


def merge(job: str) -> str:
    """Merge Job."""
    return f"{job}-merge"


def serve(job: str) -> str:
    """Deployment, Service and PodDisruptionBudget."""
    return job
