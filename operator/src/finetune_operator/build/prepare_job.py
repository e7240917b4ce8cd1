"""Job that fetches and checks model and datasets."""

from __future__ import annotations

from finetune_operator.api import names
from finetune_operator.build import batch_job, inputs, layout, pod, secrets
from finetune_operator.build.requests import requests
from finetune_operator.build.storage import job_mount
from finetune_operator.build.types import JobView, Manifest
from finetune_operator.settings import Settings

STAGE = "prepare"


def build(job: JobView, settings: Settings) -> Manifest:
    """The prepare Job. It is the only stage that goes to the network for models and data."""
    name = names.prepare(job.name)
    template = pod.template(job, settings, _pod(job, settings))
    return batch_job.build(job, name, STAGE, template, batch_job.retried_by_kubernetes(job, STAGE))


def _pod(job: JobView, settings: Settings) -> pod.StagePod:
    uris = [job.spec.model.source, *(dataset.source for dataset in inputs.datasets(job.spec))]
    return pod.StagePod(
        stage=STAGE,
        image=settings.images.trainer,
        command=["finetune-trainer", "prepare", "--run", layout.RUN_FILE],
        resources=requests(settings.stages.prepare),
        mounts=[job_mount(job), *inputs.mounts(job, uris), *secrets.of_prepare(job.spec)],
        # On the volume, so that a download that was cut off goes on where it stopped.
        environment=[pod.literal("HF_HOME", f"{layout.JOB}/.cache/huggingface")],
        spec={"restartPolicy": "Never"},
    )
