"""Making the merged model: written shard by shard, compared with base + adapter, put in place whole."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from finetune_merger.adapter import Adapter
from finetune_merger.base_choice import (
    DEQUANTIZED,
    ORIGINAL,
    BaseChoice,
    closer,
    first_choice,
    is_open,
    read_choice,
)
from finetune_merger.checkpoint import Checkpoint
from finetune_merger.layout import Layout, lay_out
from finetune_merger.merged import Merged
from finetune_merger.parity import Parity, check, compare
from finetune_merger.quantized import Dequantized
from finetune_merger.sidecar import copy_sidecars, write_config, write_index
from finetune_merger.writing import Writing
from finetune_operator.api.delivery import QuantizedBase
from finetune_operator.api.outcome import ExitCode, Figure, StageFailure
from finetune_operator.api.result import sync_folder, write_whole
from finetune_operator.api.run import RunConfig

RECORD = "finetune_merge.json"
"""In the merged model's folder: what it was made from, and the figures of its parity."""
IDENTITY = "identity"


def make(run: RunConfig, base: Checkpoint, adapter: Adapter, identity: str) -> dict[str, Figure]:
    """Write the merged model beside its place, prove it, put it in place; returns the figures."""
    started = time.monotonic()
    merged, wanted = run.paths.merged, run.spec.merge
    layout = lay_out(base, adapter, _ties(base), wanted.dtype, wanted.max_shard_size)
    beside = merged.with_name(f".{merged.name}.partial")
    work = _Work(run, base, _dequantized(run, base), adapter, layout, beside, identity)
    choice = read_choice(beside / IDENTITY, identity) or first_choice(run)
    parity, as_trained = _write_and_prove(work, choice)
    if is_open(run, choice):
        other = compare(as_trained, _logits(work, work.merged(ORIGINAL)))
        choice = closer(other.divergence, parity.divergence)
        if choice.base is ORIGINAL:
            parity, _ = _write_and_prove(work, choice)
    figures: dict[str, Figure] = dict(parity.figures())
    if work.dequantized is not None:
        figures |= choice.figures()
    figures["mergeSeconds"] = round(time.monotonic() - started, 1)
    write_whole(beside / RECORD, json.dumps({IDENTITY: identity, "figures": figures}, indent=1).encode())
    _put_in_place(beside, merged)
    return figures


@dataclass(frozen=True, slots=True)
class _Work:
    """What a merge is made from, and where."""

    run: RunConfig
    base: Checkpoint
    dequantized: Dequantized | None
    """The base model as QLoRA trained on it; None for other methods."""
    adapter: Adapter
    layout: Layout
    folder: Path
    identity: str

    def merged(self, base: QuantizedBase) -> Merged:
        """The merged model as it comes of this base."""
        wanted = self.dequantized if base is DEQUANTIZED else None
        return Merged(self.folder, wanted or self.base, self.adapter, self.layout)


# transformers and PEFT take seconds to import, which is done in the functions that need them: beside the writing wherever
# it can begin without.


def _ties(base: Checkpoint) -> Mapping[str, str]:
    """Tensors that share the values of another: name to name."""
    config = base.config()
    # A model of several parts has a configuration for each, which may say otherwise.
    if config.get("tie_word_embeddings") is False and not any(key.endswith("_config") for key in config):
        return {}
    from finetune_merger.architecture import skeleton, tied_names

    return tied_names(skeleton(base.folder))


def _dequantized(run: RunConfig, base: Checkpoint) -> Dequantized | None:
    quantization = run.spec.effective_quantization
    if quantization is None:
        return None
    from finetune_merger.architecture import quantized_names, skeleton

    return Dequantized(base, quantized_names(skeleton(base.folder)), quantization)


def _logits(work: _Work, merged: Merged) -> torch.Tensor:
    from finetune_merger.samples import sample_rows
    from finetune_merger.streamed import logits

    return logits(merged, None, sample_rows(work.run.paths.parity_rows, work.folder))


def _write_and_prove(work: _Work, choice: BaseChoice) -> tuple[Parity, torch.Tensor]:
    """Write the merged model's folder and measure its parity; one that lost it is not left behind.

    Returns the reference's logits as well: those of the base that was folded into, with the adapter beside it.
    """
    run, folder, layout = work.run, work.folder, work.layout
    merged = work.merged(choice.base)
    _open_folder(folder, f"{work.identity}\n{choice.encode()}")
    _check_room(folder, layout)
    copy_sidecars(work.base.folder, run.paths.adapter, folder)
    write_config(work.base.config(), folder, run.spec.merge.dtype, layout.unties)
    write_index(layout, folder)
    try:
        expected, found = _write_and_compute(work, merged)
        parity = compare(expected, found)
        changed = {slot.dtype for slots in layout.files.values() for slot in slots if merged.changes(slot)}
        check(parity, changed, run.spec.merge.max_parity_difference)
    except StageFailure:
        shutil.rmtree(folder)
        raise
    return parity, expected


def _write_and_compute(work: _Work, merged: Merged) -> tuple[torch.Tensor, torch.Tensor]:
    """Write the files; returns the logits of base + adapter, and those of what lies in the files."""
    folder = work.folder
    with Writing(folder, work.layout, merged.content) as writing:
        from finetune_merger.following import compute_both
        from finetune_merger.samples import sample_rows

        rows = sample_rows(work.run.paths.parity_rows, folder)
        computed = compute_both(merged, work.run.paths.adapter, rows, writing)
        writing.finish()
    # Tensors were read from where they were to lie: here that the files say the same.
    if Checkpoint.open(folder).tensors != writing.tensors:
        raise RuntimeError(f"{folder}: the files' headers differ from what was written; look at the disk")
    return computed


def _open_folder(folder: Path, mark: str) -> None:
    """Make the folder to work in; keep the files of a merge of the same things that was cut short."""
    place = folder / IDENTITY
    if folder.exists() and (not place.exists() or place.read_text() != mark):
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    write_whole(place, mark.encode())


def _check_room(folder: Path, layout: Layout) -> None:
    written = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    free = shutil.disk_usage(folder).free
    if free < layout.size - written:
        raise StageFailure(
            ExitCode.STORAGE_FULL,
            f"{folder}: {free / 1e9:.1f} GB are free, the merged model takes {(layout.size - written) / 1e9:.1f} GB more; "
            "give storage.size more room, or lower checkpoints.limit.",
        )


def _put_in_place(beside: Path, merged: Path) -> None:
    (beside / IDENTITY).unlink()
    if merged.exists():  # made from another adapter or another base
        shutil.rmtree(merged)
    sync_folder(beside)
    beside.rename(merged)
    sync_folder(merged.parent)
