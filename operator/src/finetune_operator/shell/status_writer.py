"""Writes a job's status: once a reconcile, only where it differs, and only over what was read."""

from __future__ import annotations

from finetune_operator.api.base import KIND
from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.plan.types import Manifest
from finetune_operator.shell import paths
from finetune_operator.shell.children import FIELD_MANAGER
from finetune_operator.shell.client import MERGE_PATCH, Api
from finetune_operator.shell.drift import merge_patch
from finetune_operator.shell.job_view import read_status


async def write_status(api: Api, manifest: Manifest, wanted: FineTuneJobStatus) -> bool:
    """Bring the status of the FineTuneJob that was read to what is wanted; whether a write was needed.

    Status fields of a newer operator, which this one does not know, are left alone. Raises ApiError; a conflict means
    that the object changed since it was read.
    """
    patch = merge_patch(read_status(manifest).to_manifest(), wanted.to_manifest())
    if not patch:
        return False
    metadata = manifest["metadata"]
    body: Manifest = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": patch}
    path = f"{paths.item(KIND, metadata['namespace'], metadata['name'])}/status"
    await api.patch(path, body, MERGE_PATCH, {"fieldManager": FIELD_MANAGER})
    return True
