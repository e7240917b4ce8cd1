"""Job that folds the adapter into the base model."""

from __future__ import annotations

from finetune_operator.api import names
from finetune_operator.build import batch_job, certificates, inputs, layout, pod, secrets
from finetune_operator.build.requests import requests
from finetune_operator.build.storage import job_mount
from finetune_operator.build.types import JobView, Manifest
from finetune_operator.settings import Settings

STAGE = "merge"


def build(job: JobView, settings: Settings) -> Manifest:
    """The merge Job."""
    name = names.merge(job.name)
    template = pod.template(job, settings, _pod(job, settings))
    return batch_job.build(job, name, STAGE, template, batch_job.retried_by_kubernetes(job, STAGE))


def _pod(job: JobView, settings: Settings) -> pod.StagePod:
    return pod.StagePod(
        stage=STAGE,
        image=settings.images.merger,
        command=["finetune-merger", "merge", "--run", layout.RUN_FILE],
        resources=requests(
            settings.stages.merge, gpu_resource=job.spec.resources.gpu_resource_name, gpus=job.spec.merge.gpus
        ),
        mounts=[
            job_mount(job),
            *inputs.mounts(job, [job.spec.model.source]),
            *secrets.of_merge(job.spec),
            *certificates.mounts(settings),
        ],
        environment=[*_environment(job), *certificates.environment(settings)],
        spec={"restartPolicy": "Never"},
    )


def _environment(job: JobView) -> list[Manifest]:
    if job.spec.merge.push is None:
        return pod.offline()
    # huggingface_hub refuses to upload as well when it is told to stay offline.
    return [pod.literal("HF_HOME", "/tmp/huggingface")]  # noqa: S108  # the pod's own
