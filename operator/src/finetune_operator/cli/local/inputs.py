"""What a job reads, and where that lies on this machine."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_operator.api import names
from finetune_operator.api.base import SecretKeyReference
from finetune_operator.api.dataset import Dataset
from finetune_operator.api.device import CPU, DEVICE_VARIABLE
from finetune_operator.api.model import Adapter, Model
from finetune_operator.api.run import RunConfig
from finetune_operator.api.source import S3_SESSION_KEY, ParsedSource, Scheme, keys_read, parse_source
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.cli.manifest.jobs import ManifestJob

RUN_JSON = "run.json"
CONFIG_MAPS = "config-maps"
SECRETS = "secrets"
CACHE_VARIABLE = "FINETUNE_CACHE"
DEFAULT_CACHE = Path("~/.cache/finetune-operator/models")
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
"""Of NVIDIA's driver, of AMD's, and of either in Windows' Linux subsystem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Folders on this machine that stand for a cluster's objects, by name of the object."""

    claims: Mapping[str, Path]
    config_maps: Mapping[str, Path]
    secrets: Mapping[str, Path]
    config_map_documents: Mapping[str, Mapping[str, bytes]]
    """ConfigMaps that stand in the manifests; a folder of the same name wins."""

    def config_map(self, name: str, root: Path) -> Path | None:
        """Where the files of a ConfigMap lie, or will lie once they are written; None where nobody gave it."""
        if name in self.config_maps:
            return self.config_maps[name]
        return root / CONFIG_MAPS / name if name in self.config_map_documents else None


def run_config(job: ManifestJob, inputs: Inputs, root: Path) -> RunConfig:
    """run.json of the job in the folder ``root``. What nobody gave is left out; ``input_problems`` tells."""
    parsed = [parse_source(source) for _, source in sources(job.job.spec)]
    config_maps = {name: inputs.config_map(name, root) for name in owners(parsed, Scheme.CONFIG_MAP)}
    config = RunConfig(
        name=job.name,
        uid="",
        spec=job.job.spec,
        root=str(root),
        claims={name: str(inputs.claims[name]) for name in owners(parsed, Scheme.CLAIM) if name in inputs.claims},
        config_maps={name: str(path) for name, path in config_maps.items() if path},
        cache=cache_folder(),
        gpu_memory=job.job.spec.resources.gpu_memory,
        secrets=str(root / SECRETS),
    )
    # The same manifest is the same run: a second call goes on with the first one's checkpoints and tracked run.
    identity = uuid.uuid5(uuid.NAMESPACE_OID, f"{job.name}/{config.training_hash()}")
    return config.model_copy(update={"uid": str(identity)})


def cache_folder() -> str | None:
    """Where this user's local runs keep what they download; None where FINETUNE_CACHE is set to nothing."""
    folder = os.environ.get(CACHE_VARIABLE, str(DEFAULT_CACHE))
    return str(Path(folder).expanduser().absolute()) if folder else None


def job_claims(jobs: Sequence[ManifestJob], workdir: Path) -> dict[str, Path]:
    """Folders of the jobs of this call, and of earlier ones, under the claim that the operator would make for each."""
    earlier = [file.parent.name for file in workdir.glob(f"*/{RUN_JSON}")]
    present = [job.name for job in jobs if job.job.spec.storage.claim is None]
    return {names.volume(name): workdir / name for name in (*earlier, *present)}


def owners(parsed: Sequence[ParsedSource], scheme: Scheme) -> list[str]:
    """Names of the claims or ConfigMaps among the sources."""
    return [source.owner for source in parsed if source.scheme is scheme]


def sources(spec: FineTuneJobSpec) -> Iterator[tuple[str, str]]:
    """(field, URI) of everything that a job reads."""
    yield "spec.model.source", spec.model.source
    if spec.adapter:
        yield "spec.adapter.source", spec.adapter.source
    for index, dataset in enumerate(spec.datasets):
        yield f"spec.datasets[{index}].source", dataset.source
    if spec.evaluation and spec.evaluation.dataset:
        yield "spec.evaluation.dataset.source", spec.evaluation.dataset.source


def reading_secrets(spec: FineTuneJobSpec) -> Iterator[tuple[str, SecretKeyReference]]:
    """(field, reference) of every Secret that opens something that a job reads."""
    named: dict[str, Model | Adapter | Dataset] = {
        "spec.model": spec.model,
        **{f"spec.datasets[{index}]": dataset for index, dataset in enumerate(spec.datasets)},
    }
    if spec.adapter:
        named["spec.adapter"] = spec.adapter
    if spec.evaluation and spec.evaluation.dataset:
        named["spec.evaluation.dataset"] = spec.evaluation.dataset
    for field, source in named.items():
        for reference in keys_read(source.source, source.token_secret) if source.token_secret else []:
            if reference.key != S3_SESSION_KEY:
                yield f"{field}.tokenSecret", reference


def writing_secrets(spec: FineTuneJobSpec) -> Iterator[tuple[str, SecretKeyReference]]:
    """(field, reference) of every Secret that a tracker or the hub is written to with."""
    tracking = spec.tracking
    references: dict[str, SecretKeyReference | None] = {
        "spec.tracking.wandb.apiKeySecret": tracking.wandb.api_key_secret if tracking and tracking.wandb else None,
        "spec.tracking.mlflow.tokenSecret": tracking.mlflow.token_secret if tracking and tracking.mlflow else None,
        "spec.merge.push.tokenSecret": spec.merge.push.token_secret if spec.merge.push else None,
    }
    yield from ((field, reference) for field, reference in references.items() if reference)


def input_problems(job: ManifestJob, config: RunConfig, inputs: Inputs, workdir: Path) -> list[str]:
    """A line for everything that the job needs and that is not there."""
    return [
        *reading_problems(job, config, inputs, workdir),
        *_secret_problems(job, writing_secrets(job.job.spec), inputs),
        *(job.problem(field, words) for field, words in _machine_problems(job.job.spec)),
    ]


def reading_problems(job: ManifestJob, config: RunConfig, inputs: Inputs, workdir: Path) -> list[str]:
    """A line for everything that the job reads and that is not there."""
    problems = [
        job.problem(field, words)
        for field, source in sources(job.job.spec)
        if (words := _source_problem(config, source, workdir))
    ]
    return problems + _secret_problems(job, reading_secrets(job.job.spec), inputs)


def _secret_problems(
    job: ManifestJob, references: Iterator[tuple[str, SecretKeyReference]], inputs: Inputs
) -> list[str]:
    return [
        job.problem(field, words) for field, reference in references if (words := _secret_problem(reference, inputs))
    ]


def _machine_problems(spec: FineTuneJobSpec) -> Iterator[tuple[str, str]]:
    asked = spec.resources
    if asked.nodes > 1:
        yield "spec.resources.nodes", f"found {asked.nodes}, but a local run trains on this machine alone; set it to 1"


def device_environment() -> dict[str, str]:
    """What tells the stages that the GPUs a manifest asks for are not here."""
    return {} if has_gpu() else {DEVICE_VARIABLE: CPU}


def has_gpu() -> bool:
    """Whether a GPU's driver offers a device here."""
    return any(device.exists() for device in GPU_DEVICES)


def _source_problem(config: RunConfig, source: str, workdir: Path) -> str | None:
    parsed = parse_source(source)
    if parsed.scheme is Scheme.OCI:
        return f"found {source}, but image volumes exist in a cluster only; unpack the image and write file:///PATH"
    try:
        path = config.local_path(source)
    except KeyError:
        kind, flag = ("claim", "--claim") if parsed.scheme is Scheme.CLAIM else ("ConfigMap", "--config-map")
        return f"found {source}, but there is no {kind} {parsed.owner} here; say which folder it is: {flag} {parsed.owner}=DIR"
    # What an earlier job of the same call leaves, or a ConfigMap of the same stream, is written only later.
    if path is None or path.exists() or path.resolve().is_relative_to(workdir):
        return None
    return f"found {source}, but {path} does not exist"


def _secret_problem(reference: SecretKeyReference, inputs: Inputs) -> str | None:
    folder = inputs.secrets.get(reference.name)
    if folder is None:
        return (
            f"found Secret {reference.name}, but there is none here; write the value to a file DIR/{reference.key} and pass "
            f"--secret {reference.name}=DIR"
        )
    return (
        None
        if (folder / reference.key).is_file()
        else f"found no file {folder / reference.key}, expected the Secret's value"
    )
