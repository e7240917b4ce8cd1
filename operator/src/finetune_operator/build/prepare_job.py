"""Job that fetches and checks model and datasets."""

from __future__ import annotations

from finetune_operator.api import names
from finetune_operator.build import batch_job, certificates, inputs, layout, pod, secrets
from finetune_operator.build.mount import Mount
from finetune_operator.build.requests import requests
from finetune_operator.build.storage import claim_source, job_mount
from finetune_operator.build.types import JobView, Manifest
from finetune_operator.settings import Settings

STAGE = "prepare"


def build(job: JobView, settings: Settings, *, has_cache: bool = False) -> Manifest:
    """The prepare Job. It is the only stage that goes to the network for models and data.

    ``has_cache``: the job's namespace has the claim with the cache that jobs share.
    """
    name = names.prepare(job.name)
    template = pod.template(job, settings, _pod(job, settings, _cache(settings) if has_cache else []))
    return batch_job.build(job, name, STAGE, template, batch_job.retried_by_kubernetes(job, STAGE))


def _pod(job: JobView, settings: Settings, cache: list[Mount]) -> pod.StagePod:
    uris = [*inputs.weights(job.spec), *(dataset.source for dataset in inputs.datasets(job.spec))]
    return pod.StagePod(
        stage=STAGE,
        image=settings.images.trainer,
        command=["finetune-trainer", "prepare", "--run", layout.RUN_FILE],
        resources=requests(settings.stages.prepare),
        mounts=[
            job_mount(job),
            *inputs.mounts(job, uris),
            *cache,
            *secrets.of_prepare(job.spec),
            *certificates.mounts(settings),
        ],
        # What the libraries keep beside the downloads themselves: the container's own file system is read-only.
        environment=[pod.literal("HF_HOME", "/tmp/huggingface"), *certificates.environment(settings)],  # noqa: S108  # the pod's own
        spec={"restartPolicy": "Never"},
    )


def _cache(settings: Settings) -> list[Mount]:
    claim = settings.cache.claim
    return [Mount(name="cache", source=claim_source(claim), path=layout.CACHE, read_only=False)] if claim else []
