"""The merge stage: plan, write shard by shard, check parity, put in place, push."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from finetune_merger.adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter, read_adapter
from finetune_merger.checkpoint import FLOATS, Checkpoint
from finetune_merger.fold import converted, folded
from finetune_merger.layout import Layout, Slot, lay_out
from finetune_merger.parity import check, measure
from finetune_merger.push import check_target, push_model
from finetune_merger.samples import sample_rows
from finetune_merger.sidecar import copy_sidecars, write_config, write_index
from finetune_merger.streamed import skeleton, tied_names
from finetune_merger.writer import write_shard
from finetune_operator.api.outcome import ExitCode, Figure, StageFailure
from finetune_operator.api.result import record_stage, sync_folder, write_whole
from finetune_operator.api.run import RunConfig

log = logging.getLogger(__name__)

RECORD = "finetune_merge.json"
"""In the merged model's folder: what it was made from, and the figures of its parity."""
_IDENTITY = "identity"


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
    adapter = read_adapter(run.paths.adapter)
    _check_base(base, adapter)
    identity = _identity(run, base)
    figures = _finished(run.paths.merged, identity)
    if figures is None:
        figures = _make(run, base, adapter, identity)
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
    base = Checkpoint.open(run.paths.base_model)
    if "quantization_config" in base.config():
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"{base.folder}: the weights are quantised; an adapter is merged into the original 16-bit model. "
            "Set model.source to that one, or serve un-merged with merge.enabled false and serving.mode Adapter.",
        )
    return base


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


def _make(run: RunConfig, base: Checkpoint, adapter: Adapter, identity: str) -> dict[str, Figure]:
    started = time.monotonic()
    merged, wanted = run.paths.merged, run.spec.merge
    layout = lay_out(base, adapter, tied_names(skeleton(base.folder)), wanted.dtype, wanted.max_shard_size)
    beside = merged.with_name(f".{merged.name}.partial")
    _open_folder(beside, identity)
    _check_room(beside, layout)
    for file, slots in layout.files.items():
        _write_file(beside / file, slots, base, adapter)
    copy_sidecars(base.folder, run.paths.adapter, beside)
    write_config(base.config(), beside, wanted.dtype, layout.unties)
    write_index(layout, beside)
    figures = {**_prove(run, base, adapter, layout, beside), "mergeSeconds": round(time.monotonic() - started, 1)}
    write_whole(beside / RECORD, json.dumps({_IDENTITY: identity, "figures": figures}, indent=1).encode())
    _put_in_place(beside, merged)
    return figures


def _open_folder(folder: Path, identity: str) -> None:
    """Make the folder to work in; keep the files of a merge of the same things that was cut short."""
    mark = folder / _IDENTITY
    if folder.exists() and (not mark.exists() or mark.read_text() != identity):
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    write_whole(mark, identity.encode())


def _check_room(folder: Path, layout: Layout) -> None:
    written = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    free = shutil.disk_usage(folder).free
    if free < layout.size - written:
        raise StageFailure(
            ExitCode.STORAGE_FULL,
            f"{folder}: {free / 1e9:.1f} GB are free, the merged model takes {(layout.size - written) / 1e9:.1f} GB more; "
            "give storage.size more room, or lower checkpoints.limit.",
        )


def _write_file(path: Path, slots: Sequence[Slot], base: Checkpoint, adapter: Adapter) -> None:
    if path.exists():  # a file bears its name only once it is whole
        return
    write_shard(path, slots, lambda slot: _blocks(slot, base, adapter))
    log.info("%s written", path.name)


def _blocks(slot: Slot, base: Checkpoint, adapter: Adapter) -> Iterator[torch.Tensor]:
    """The rows of one tensor of the merged model; those that nothing changes as they are."""
    update, replacement = adapter.updates.get(slot.name), adapter.replacements.get(slot.name)
    if update is None and replacement is None and slot.dtype == base.tensors[slot.source].dtype:
        yield base.load(slot.source)
        return
    with base.view(slot.source) as view:
        rows = view if replacement is None else replacement
        if update is not None:
            yield from folded(rows, update, FLOATS[slot.dtype])
        else:
            yield from converted(rows, slot.shape, FLOATS[slot.dtype])


def _prove(run: RunConfig, base: Checkpoint, adapter: Adapter, layout: Layout, folder: Path) -> dict[str, Figure]:
    """Measure parity; a merged model that lost it is not left behind."""
    rows = sample_rows(run.paths.parity_rows, folder)
    parity = measure(base, run.paths.adapter, Checkpoint.open(folder), rows)
    changed = {
        slot.dtype
        for slots in layout.files.values()
        for slot in slots
        if slot.name in adapter.touched or slot.dtype != base.tensors[slot.source].dtype
    }
    try:
        check(parity, changed, run.spec.merge.max_parity_difference)
    except StageFailure:
        shutil.rmtree(folder)
        raise
    return parity.figures()


def _put_in_place(beside: Path, merged: Path) -> None:
    (beside / _IDENTITY).unlink()
    if merged.exists():  # made from another adapter or another base
        shutil.rmtree(merged)
    sync_folder(beside)
    beside.rename(merged)
    sync_folder(merged.parent)


def _finished(merged: Path, identity: str) -> dict[str, Figure] | None:
    try:
        record = json.loads((merged / RECORD).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    figures: dict[str, Figure] = record["figures"]
    return figures if record[_IDENTITY] == identity else None


def _identity(run: RunConfig, base: Checkpoint) -> str:
    """Hash of what the merged model is made from: equal where a merge may be gone on with, or is done."""
    digest = hashlib.sha256(f"{run.spec.merge.dtype} {run.spec.merge.max_shard_size}".encode())
    for path in (run.paths.adapter / CONFIG_FILE, run.paths.adapter / WEIGHTS_FILE, base.folder / "config.json"):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for file_name in sorted({info.file for info in base.tensors.values()}):
        digest.update(f"{file_name} {(base.folder / file_name).stat().st_size}".encode())
    return digest.hexdigest()
