"""What a live batch/v1 Job says about itself."""

from __future__ import annotations

import datetime as dt

from finetune_operator.build.types import Manifest
from finetune_operator.plan import instants


def is_complete(job: Manifest) -> bool:
    """Whether every pod succeeded."""
    return _condition(job, "Complete") is not None


def is_failed(job: Manifest) -> bool:
    """Whether the Job has failed for good and all its pods have ended."""
    return _condition(job, "Failed") is not None


def is_finished(job: Manifest) -> bool:
    """Whether the Job will start no more pods."""
    return is_complete(job) or is_failed(job)


def is_suspended(job: Manifest) -> bool:
    """Whether somebody, the operator or a queue, holds the Job back."""
    return bool(job.get("spec", {}).get("suspend"))


def is_being_deleted(child: Manifest) -> bool:
    """Whether the object goes away once its own children are gone."""
    return child["metadata"].get("deletionTimestamp") is not None


def failed_at(job: Manifest) -> dt.datetime | None:
    """When the Job failed."""
    condition = _condition(job, "Failed")
    text = condition.get("lastTransitionTime") if condition else None
    return instants.from_text(text) if text else None


def failed_because(job: Manifest) -> str:
    """The Job controller's words on a failure."""
    condition = _condition(job, "Failed") or {}
    return ": ".join(word for word in (condition.get("reason"), condition.get("message")) if word)


def pod_made_way(job: Manifest) -> bool:
    """Whether the Job failed by a rule of its podFailurePolicy: in training, for a pod that was told to stop."""
    return (_condition(job, "Failed") or {}).get("reason") == "PodFailurePolicy"


def tries(job: Manifest) -> int:
    """Pods that failed."""
    return int((job.get("status") or {}).get("failed") or 0)


def _condition(job: Manifest, type_: str) -> Manifest | None:
    found = (job.get("status") or {}).get("conditions") or []
    return next((entry for entry in found if entry["type"] == type_ and entry["status"] == "True"), None)
