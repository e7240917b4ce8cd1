"""Export and chat files: they become spec.merge and spec.serving of the job that trains what they name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_operator.api.delivery import ServingMode
from finetune_operator.api.method import Method
from finetune_operator.api.source import Scheme
from finetune_operator.cli.convert.keys import EXPORT
from finetune_operator.cli.convert.names import ENGINES, MERGE_DTYPES
from finetune_operator.cli.convert.options import Options
from finetune_operator.cli.convert.settings import Settings
from finetune_operator.cli.convert.sources import NoSource, hub_source
from finetune_operator.cli.convert.train import model, secret
from finetune_operator.cli.convert.yaml_lines import read_config
from finetune_operator.cli.errors import CommandError

Block = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trained:
    """A training file and the spec that was made of it."""

    settings: Settings
    spec: Block

    @property
    def output(self) -> str | None:
        """Where LLaMA-Factory would leave the result."""
        return absolute_path(self.settings.text("output_dir")) if self.settings.is_set("output_dir") else None


def deliver(files: Sequence[Settings], trained: Sequence[Trained], options: Options) -> None:
    """Give each job what the export and chat files say of it; problems go to these files' findings."""
    exported: dict[str, Trained] = {}
    for settings in (file for file in files if file.purpose == EXPORT):
        job = _job_of(settings, trained, {})
        if job is not None and _fits(settings, job, options):
            exported[absolute_path(settings.text("export_dir"))] = job
            _merge(settings, job)
    for settings in (file for file in files if file.purpose != EXPORT):
        job = _job_of(settings, trained, exported)
        if job is not None and _fits(settings, job, options):
            _serve(settings, job)


def absolute_path(text: str) -> str:
    """A path of LLaMA-Factory's, from the working directory."""
    return os.path.abspath(os.path.expanduser(text))


def _job_of(settings: Settings, trained: Sequence[Trained], exported: Mapping[str, Trained]) -> Trained | None:
    """The job that trains the adapter, or the whole model, that the file names."""
    key = "adapter_name_or_path" if settings.is_set("adapter_name_or_path") else "model_name_or_path"
    named = settings.names(key) if key == "adapter_name_or_path" else [settings.text(key)]
    if len(named) > 1:
        settings.findings.problem(key, f"found {len(named)} adapters, expected one; a job has one adapter")
        return None
    path = absolute_path(named[0]) if named else ""
    if key == "model_name_or_path" and path in exported:
        return exported[path]
    jobs = [job for job in trained if job.output == path]
    if len(jobs) == 1:
        return jobs[0]
    found = f"found {named[0] if named else 'nothing'}"
    if jobs:
        files = ", ".join(job.settings.config.file for job in jobs)
        settings.findings.problem(
            key, f"{found}, which is the output_dir of {files}; pass one of them, or set other folders"
        )
    elif settings.text("model_name_or_path"):
        settings.findings.problem(
            key,
            f"{found}, expected the output_dir of a training file of this call: a job merges and serves only what it has trained "
            f"itself; pass {_training_file(path, settings) or 'that file'} as well",
        )
    return None


def _training_file(output: str, settings: Settings) -> str | None:
    """The file beside this one that trains what it names."""
    for path in sorted(settings.config.folder.glob("*.y*ml")):
        with contextlib.suppress(CommandError):
            if absolute_path(str(read_config(str(path)).values.get("output_dir"))) == output:
                return str(path)
    return None


def _fits(settings: Settings, job: Trained, options: Options) -> bool:
    """Whether the file means the very model and template that the job trains."""
    before = len(settings.findings.problems)
    is_adapter = settings.is_set("adapter_name_or_path")
    if is_adapter and job.spec["method"] == Method.FULL.value:
        settings.findings.problem("adapter_name_or_path", f"found the output of {job.settings.config.file}, which trains a whole "
                                  "model; name it in model_name_or_path instead")  # fmt: skip
    source, trained = model(settings, options).get("source"), job.spec["model"].get("source")
    if is_adapter and source and trained and source != trained:
        settings.findings.problem(
            "model_name_or_path", f"found {source}, but {job.settings.config.file} trains {trained}; name the same"
        )
    prompt, known_prompt = settings.text("default_system"), job.settings.text("default_system")
    if prompt and prompt != known_prompt:
        settings.findings.problem(
            "default_system",
            f"found another one than in {job.settings.config.file}; a model is served with the one it was trained with: name the same",
        )
    template = settings.text("template")
    if template and template != job.settings.text("template"):
        known = job.settings.text("template") or "the model's own"
        settings.findings.problem(
            "template", f"found {template}, but {job.settings.config.file} trains with {known}; name the same"
        )
    return len(settings.findings.problems) == before


def _merge(settings: Settings, job: Trained) -> None:
    if not settings.is_set("adapter_name_or_path"):
        text = f"found the whole model of {job.settings.config.file}, expected an adapter to merge; leave this file out"
        settings.findings.problem("export_dir", text)
        return
    if settings.is_set("quantization_bit"):
        settings.findings.problem(
            "quantization_bit", "found in an export file, but adapters are merged into whole weights; remove it"
        )
    merge: Block = {
        "enabled": True,
        "dtype": MERGE_DTYPES[settings.text("infer_dtype")].value,
        "maxShardSize": f"{settings.get('export_size')}GB",
    }
    push = _push(settings)
    job.spec["merge"] = merge | ({"push": push} if push else {})
    settings.findings.note(
        "export_dir", f"the merged model lies in merged/ on the volume of {job.settings.config.file}'s job"
    )


def _push(settings: Settings) -> Block | None:
    if not settings.is_set("export_hub_model_id"):
        return None
    try:
        target = hub_source(settings.text("export_hub_model_id"), Scheme.HUGGING_FACE)
    except NoSource as error:
        settings.findings.problem("export_hub_model_id", str(error))
        return None
    reference = secret(settings, target)
    if reference is None:
        settings.findings.note(
            "export_hub_model_id", "set spec.merge.push.tokenSecret to a Secret with a token that may write"
        )
    return {"target": target, **({"tokenSecret": reference} if reference else {})}


def _serve(settings: Settings, job: Trained) -> None:
    backend = settings.text("infer_backend")
    if backend == "sglang":
        settings.findings.problem("infer_backend", "found sglang, expected vllm or huggingface; use one of them")
        return
    if settings.text("infer_dtype") != "auto":
        settings.findings.problem(
            "infer_dtype", "found in a chat file, but a model is served in its own format; remove it"
        )
    if settings.is_set("quantization_bit"):
        settings.findings.note("quantization_bit", "the served model is not quantised")
    is_adapter = settings.is_set("adapter_name_or_path")
    job.spec["serving"] = {
        "mode": (ServingMode.ADAPTER if is_adapter else ServingMode.MERGED).value,
        **({"engine": ENGINES[backend].value} if backend else {}),
        # A job that trains on the CPU is not given a GPU to answer.
        "gpus": min(1, job.spec["resources"]["gpusPerNode"]),
    }
    if is_adapter:
        job.spec.setdefault("merge", {"enabled": False})
