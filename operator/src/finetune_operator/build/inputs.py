"""Models and datasets that the kubelet mounts: claims, ConfigMaps and images that sources name."""

from __future__ import annotations

from collections.abc import Iterable

from finetune_operator.api.dataset import Dataset
from finetune_operator.api.source import ParsedSource, Scheme, parse_source
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.build import layout
from finetune_operator.build.mount import Mount
from finetune_operator.build.storage import claim_source, job_claim
from finetune_operator.build.types import JobView


def datasets(spec: FineTuneJobSpec) -> list[Dataset]:
    """Every dataset of the job: those to learn from, and the one to evaluate on."""
    evaluation = spec.evaluation.dataset if spec.evaluation else None
    return [*spec.datasets, *([evaluation] if evaluation else [])]


def sources(spec: FineTuneJobSpec) -> list[ParsedSource]:
    """Sources of the model, of the adapter to go on with, and of every dataset, each once, in the order of the spec."""
    uris = [*weights(spec), *(dataset.source for dataset in datasets(spec))]
    return [parse_source(uri) for uri in dict.fromkeys(uris)]


def weights(spec: FineTuneJobSpec) -> list[str]:
    """URIs of what training, merging and adapter serving read: the model, and the adapter to go on with."""
    return [spec.model.source, *([spec.adapter.source] if spec.adapter else [])]


def claims(spec: FineTuneJobSpec) -> list[str]:
    """PersistentVolumeClaims that sources name."""
    return _owners(spec, Scheme.CLAIM)


def config_maps(spec: FineTuneJobSpec) -> list[str]:
    """ConfigMaps that sources name."""
    return _owners(spec, Scheme.CONFIG_MAP)


def images(spec: FineTuneJobSpec) -> list[str]:
    """Images that sources name."""
    return _owners(spec, Scheme.OCI)


def mounts(job: JobView, uris: Iterable[str]) -> list[Mount]:
    """Mounts for the sources that a stage reads; sources that are downloaded need none."""
    built = [_mount(job, parse_source(uri)) for uri in uris]
    return list({mount.path: mount for mount in built if mount}.values())


def _owners(spec: FineTuneJobSpec, scheme: Scheme) -> list[str]:
    return list(dict.fromkeys(source.owner for source in sources(spec) if source.scheme is scheme))


def _mount(job: JobView, source: ParsedSource) -> Mount | None:
    if source.scheme is Scheme.CLAIM:
        return _claim_mount(job, source.owner)
    if source.scheme is Scheme.CONFIG_MAP:
        index = config_maps(job.spec).index(source.owner)
        config_map = {"configMap": {"name": source.owner}}
        return Mount(name=f"configmap-{index}", source=config_map, path=layout.config_map_folder(source.owner))
    if source.scheme is Scheme.OCI:
        index = images(job.spec).index(source.owner)
        image = {"image": {"reference": source.owner, "pullPolicy": "IfNotPresent"}}
        return Mount(name=f"image-{index}", source=image, path=layout.image_folder(index))
    return None


def _claim_mount(job: JobView, claim: str) -> Mount:
    # The job's own claim may hold its input as well: then it is the same volume, mounted a second time.
    name = "job" if claim == job_claim(job) else f"claim-{claims(job.spec).index(claim)}"
    return Mount(name=name, source=claim_source(claim), path=layout.claim_folder(claim))
