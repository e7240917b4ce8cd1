"""ConfigMap with run.json and the certificate of the progress endpoint."""

from __future__ import annotations

from finetune_operator.api import names
from finetune_operator.api.run import RunConfig
from finetune_operator.build import inputs, layout
from finetune_operator.build.metadata import metadata
from finetune_operator.build.types import JobView, Manifest
from finetune_operator.settings import Settings


def build(job: JobView, settings: Settings, certificate: str) -> Manifest:
    """The ConfigMap. It holds the current spec; stages read it once, when they start.

    Only fields that the API lets change (suspend, serving, deadlines) can differ between two versions of it, so that
    training never sees another configuration than it began with. ``certificate`` is PEM.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(job, names.run_config(job.name), "run"),
        "data": {layout.RUN_KEY: run_config(job, settings).dump(), layout.CERTIFICATE_KEY: certificate},
    }


def run_config(job: JobView, settings: Settings) -> RunConfig:
    """What the stages are told, with the paths as the pods mount them."""
    return RunConfig(
        name=job.name,
        namespace=job.namespace,
        uid=job.uid,
        spec=job.spec,
        root=layout.JOB,
        claims={claim: layout.claim_folder(claim) for claim in inputs.claims(job.spec)},
        config_maps={name: layout.config_map_folder(name) for name in inputs.config_maps(job.spec)},
        images={reference: layout.image_folder(index) for index, reference in enumerate(inputs.images(job.spec))},
        cache=layout.CACHE if settings.cache.claim else None,
        patience_seconds=settings.patience_seconds,
        gpu_memory=job.spec.resources.gpu_memory or settings.gpu.memory,
        secrets=layout.SECRETS,
        hub=settings.hub,
        watchdog=settings.watchdog,
    )
