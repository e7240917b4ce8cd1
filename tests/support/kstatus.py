"""kstatus' verdict on an object, by which Flux, kpt and Helm 4's `--wait` tell whether it is done.

The order of the checks is that of pkg/kstatus/status (status.go, generic.go) in sigs.k8s.io/cli-utils and in Flux's fork of it. Rules for
Kubernetes' own kinds are left out: a custom resource has none.
"""

from __future__ import annotations

import enum
from typing import Any


class Verdict(enum.StrEnum):
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    CURRENT = "Current"
    TERMINATING = "Terminating"


def compute(manifest: dict[str, Any]) -> Verdict:
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return Verdict.TERMINATING
    if "generation" in metadata and status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return Verdict.IN_PROGRESS
    conditions = status.get("conditions") or []
    for condition in conditions:
        if condition["status"] == "True" and condition["type"] in ("Reconciling", "Stalled"):
            return Verdict.IN_PROGRESS if condition["type"] == "Reconciling" else Verdict.FAILED
    ready = next((condition["status"] for condition in conditions if condition["type"] == "Ready"), None)
    if ready in ("False", "Unknown"):
        return Verdict.IN_PROGRESS
    return Verdict.CURRENT
