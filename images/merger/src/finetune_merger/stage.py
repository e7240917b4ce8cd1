"""The merge stage: what it refuses, what it need not do again, and what it leaves on record."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from finetune_merger.adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter, read_adapter
from finetune_merger.checkpoint import Checkpoint
from finetune_merger.make import IDENTITY, RECORD, make
from finetune_merger.push import check_target, push_model
from finetune_operator.api.outcome import ExitCode, Figure, StageFailure
from finetune_operator.api.result import record_stage
from finetune_operator.api.run import RunConfig

log = logging.getLogger(__name__)


def merge(run: RunConfig) -> Mapping[str, Figure]:
    """Fold the job's adapter into its base model; returns the figures.

    A finished merge returns at once; one that was cut short goes on after the last file that it finished.
    """
    if not run.spec.is_adapter:
        raise StageFailure(
            ExitCode.INVALID_SPEC, "method: Full leaves no adapter to merge; merge is for LoRA and QLoRA."
        )
    push = run.spec.merge.push
    if push is not None:
        check_target(push)
    base = _open_base(run)
    adapter = read_adapter(run.paths.adapter, base.device)
    _check_base(base, adapter)
    identity = _identity(run, base)
    figures = _finished(run.paths.merged, identity)
    if figures is None:
        figures = make(run, base, adapter, identity)
    if push is not None:
        figures = {**figures, "pushed": push_model(run, push, run.paths.merged)}
    record_stage(run.paths.result, "merge", figures)
    return figures


def _open_base(run: RunConfig) -> Checkpoint:
    # Looked at again: what is mounted may have changed since prepare, and what lies beside the weights is passed on.
    if stray := run.stray(run.spec.model.source):
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"spec.model.source: {stray} is a link that leads out of the volume, expected files of it; copy the file itself.",
        )
    base = Checkpoint.open(run.paths.base_model, _device())
    if "quantization_config" in base.config():
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"{base.folder}: the weights are quantised; an adapter is merged into the original 16-bit model. "
            "Set model.source to that one, or serve un-merged with merge.enabled false and serving.mode Adapter.",
        )
    return base


def _device() -> torch.device:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    log.info("computing on %s", torch.cuda.get_device_name() if device.type == "cuda" else "the CPU")
    return device


def _check_base(base: Checkpoint, adapter: Adapter) -> None:
    """Refuse an adapter of another base model, as far as the one that it names can still be looked at."""
    named = Path(adapter.config.base_model_name_or_path or "")
    # Compared by content: the same model may lie elsewhere than it did in training.
    if (named / "config.json").is_file() and Checkpoint(named, {}).config() != base.config():
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"the adapter was trained on {named}, whose config.json differs from the one in {base.folder}; "
            "merge with the model that it was trained on.",
        )


def _finished(merged: Path, identity: str) -> dict[str, Figure] | None:
    try:
        record = json.loads((merged / RECORD).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    figures: dict[str, Figure] = record["figures"]
    return figures if record[IDENTITY] == identity else None


def _identity(run: RunConfig, base: Checkpoint) -> str:
    """Hash of what the merged model is made from: equal where a merge may be gone on with, or is done."""
    digest = hashlib.sha256(f"{run.spec.merge.dtype} {run.spec.merge.max_shard_size}".encode())
    if quantization := run.spec.effective_quantization:
        digest.update(f"{run.spec.merge.quantized_base} {quantization.model_dump_json()}".encode())
    for path in (run.paths.adapter / CONFIG_FILE, run.paths.adapter / WEIGHTS_FILE, base.folder / "config.json"):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for file_name in sorted({info.file for info in base.tensors.values()}):
        digest.update(f"{file_name} {(base.folder / file_name).stat().st_size}".encode())
    return digest.hexdigest()
