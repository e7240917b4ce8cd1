"""PersistentVolumeClaim that the operator makes where the job names none."""

from __future__ import annotations

from finetune_operator.api import names
from finetune_operator.api.resources import Retention
from finetune_operator.build.metadata import metadata
from finetune_operator.build.types import JobView, Manifest
from finetune_operator.settings import Settings


def build(job: JobView, settings: Settings) -> Manifest:
    """The claim. With retention Retain it has no owner, so that the model outlives the FineTuneJob."""
    storage = job.spec.storage
    storage_class = storage.storage_class_name or settings.storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(job, names.volume(job.name), "storage", owned=storage.retention is Retention.DELETE),
        "spec": {
            "accessModes": [storage.access_mode.value],
            "resources": {"requests": {"storage": storage.size or settings.storage.size}},
            **({"storageClassName": storage_class} if storage_class else {}),
        },
    }
