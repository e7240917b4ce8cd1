"""What the Jobs of all stages share."""

from __future__ import annotations

from collections.abc import Iterable

from finetune_operator.api import names
from finetune_operator.api.outcome import PERMANENT, ExitCode
from finetune_operator.build.metadata import has_queue, workload_metadata
from finetune_operator.build.types import JobView, Manifest

_DISRUPTED: list[Manifest] = [{"type": "DisruptionTarget", "status": "True"}]


def build(job: JobView, name: str, stage: str, template: Manifest, more: Manifest) -> Manifest:
    """A batch/v1 Job. It gets no ttlSecondsAfterFinished: the operator deletes it when spec says so.

    ``more`` holds the stage's own fields of the Job's spec.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": workload_metadata(job, name, stage),
        "spec": {
            # Two pods must never write to one volume: the next starts when the last has ended.
            "podReplacementPolicy": "Failed",
            **_suspension(job),
            **more,
            "template": template,
        },
    }


def retried_by_kubernetes(job: JobView, container: str) -> Manifest:
    """Job fields that retry lost pods, but not those that would fail the same way again."""
    rules = [
        {"action": "FailJob", "onExitCodes": _exit_codes(container, PERMANENT)},
        # A pod that made way for another or for a drained node did nothing wrong.
        {"action": "Ignore", "onPodConditions": _DISRUPTED},
    ]
    return {"backoffLimit": job.spec.max_retries, "podFailurePolicy": {"rules": rules}}


def retried_by_the_operator(container: str) -> Manifest:
    """Job fields that retry nothing, and have the Job itself say of a pod that made way that it did.

    A drain may take the operator's pod together with this one, which is gone before an operator is back to look at it.
    """
    rules = [
        {"action": "FailJob", "onPodConditions": _DISRUPTED},
        {"action": "FailJob", "onExitCodes": _exit_codes(container, [ExitCode.PREEMPTED])},
    ]
    return {"backoffLimit": 0, "podFailurePolicy": {"rules": rules}}


def _exit_codes(container: str, codes: Iterable[ExitCode]) -> Manifest:
    return {"containerName": container, "operator": "In", "values": sorted(int(code) for code in codes)}


def attempt_label(attempt: int) -> dict[str, str]:
    """Label that tells the attempts of training apart."""
    return {names.ATTEMPT_LABEL: str(attempt)}


def _suspension(job: JobView) -> Manifest:
    # Kueue's webhook suspends and resumes the Jobs of a queue; a second hand on the field would fight it.
    return {} if has_queue(job) else {"suspend": job.spec.suspend}
