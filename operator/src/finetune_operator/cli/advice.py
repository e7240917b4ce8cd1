"""What to do next with a job, by the stage that it is in."""

from __future__ import annotations

from finetune_operator.api import conditions
from finetune_operator.cli.shown_job import ShownJob

_BY_STAGE = {
    conditions.PENDING: "the operator has not taken it up yet; if that lasts, see whether the operator runs: kubectl get pods -A",
    conditions.QUEUED: "it waits for room; `kubectl get events -n {namespace}` says for what",
    conditions.SUSPENDED_BY_USER: "`finetune resume {name}` lets it go on",
    conditions.PREPARING: "`finetune logs {name} -f` follows it",
    conditions.TRAINING: "`finetune logs {name} -f` follows it, `finetune plot {name}` draws the loss",
    conditions.RETRYING: "it starts again by itself from the last checkpoint; `finetune logs {name} --stage train` says what happened",
    conditions.MERGING: "`finetune logs {name} -f` follows it",
    conditions.DEPLOYING: "`finetune wait {name} --for Served` returns once it answers",
    conditions.NOT_STARTING: "`kubectl logs -n {namespace} deployment/{name}` says why no pod answers; mended, it goes on by itself",
    conditions.SERVING: "`finetune chat {name}` talks to it",
    conditions.COMPLETED: "the model is on the volume; set spec.serving to have it served",
}


def next_step(job: ShownJob) -> str:
    """One sentence."""
    if job.holds(conditions.FAILED):
        text = "mend what Failed names, delete the job and create it again; `finetune logs {name}` has the whole log"
    else:
        text = _BY_STAGE.get(job.stage, "`kubectl describe ftj {name}` says more")
    return text.format(name=job.name, namespace=job.namespace)
