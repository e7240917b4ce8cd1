"""Metadata of every child: name, labels, owner; and what Kueue reads on workloads."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_operator.api import names
from finetune_operator.api.base import API_VERSION, KIND
from finetune_operator.build.types import JobView, Manifest

KUEUE_PREFIX = "kueue.x-k8s.io/"
QUEUE_LABEL = f"{KUEUE_PREFIX}queue-name"
_POD_SET_PREFIX = f"{KUEUE_PREFIX}podset-"


def metadata(job: JobView, name: str, stage: str, *, owned: bool = True) -> Manifest:
    """Metadata of a child; ``owned`` ones are garbage-collected with the FineTuneJob."""
    built: Manifest = {"name": name, "namespace": job.namespace, "labels": names.labels(job.name, stage)}
    if owned:
        built["ownerReferences"] = [owner_reference(job)]
    return built


def workload_metadata(job: JobView, name: str, stage: str) -> Manifest:
    """Metadata of a Job or Deployment, with the marks that tell Kueue to admit it."""
    built = metadata(job, name, stage)
    built["labels"] |= _kueue(job.labels) | _queue_label(job)
    annotations = {key: value for key, value in _kueue(job.annotations).items() if not _is_for_pods(key)}
    return built | ({"annotations": annotations} if annotations else {})


def pod_annotations(job: JobView) -> dict[str, str]:
    """Topology requests, which Kueue reads on the pod template and refuses on the workload."""
    return {key: value for key, value in _kueue(job.annotations).items() if _is_for_pods(key)}


def has_queue(job: JobView) -> bool:
    """Whether Kueue decides when the job's pods run."""
    return job.spec.resources.queue is not None or QUEUE_LABEL in job.labels


def owner_reference(job: JobView) -> Manifest:
    """Reference of a child to the FineTuneJob as its controller."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": job.name,
        "uid": job.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _queue_label(job: JobView) -> dict[str, str]:
    queue = job.spec.resources.queue
    return {QUEUE_LABEL: queue} if queue else {}


def _kueue(marks: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in marks.items() if key.startswith(KUEUE_PREFIX)}


def _is_for_pods(key: str) -> bool:
    return key.startswith(_POD_SET_PREFIX)
