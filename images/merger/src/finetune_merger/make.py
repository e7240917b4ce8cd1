"""Making the merged model: written shard by shard, compared with base + adapter, put in place whole."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

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
from finetune_merger.layout import Layout, Slot, lay_out
from finetune_merger.merged import Merged
from finetune_merger.parity import Parity, check, compare, logits
from finetune_merger.quantized import Dequantized, quantized_names
from finetune_merger.samples import sample_rows
from finetune_merger.sidecar import copy_sidecars, write_config, write_index
from finetune_merger.streamed import skeleton, tied_names
from finetune_merger.weights import Weights
from finetune_merger.writer import write_shard
from finetune_operator.api.delivery import QuantizedBase
from finetune_operator.api.outcome import ExitCode, Figure, StageFailure
from finetune_operator.api.result import sync_folder, write_whole
from finetune_operator.api.run import RunConfig

log = logging.getLogger(__name__)

RECORD = "finetune_merge.json"
"""In the merged model's folder: what it was made from, and the figures of its parity."""
IDENTITY = "identity"


def make(run: RunConfig, base: Checkpoint, adapter: Adapter, identity: str) -> dict[str, Figure]:
    """Write the merged model beside its place, prove it, put it in place; returns the figures."""
    started = time.monotonic()
    merged, wanted = run.paths.merged, run.spec.merge
    model = skeleton(base.folder)
    layout = lay_out(base, adapter, tied_names(model), wanted.dtype, wanted.max_shard_size)
    beside = merged.with_name(f".{merged.name}.partial")
    work = _Work(run, base, _dequantized(run, base, model), adapter, layout, beside, identity)
    choice = read_choice(beside / IDENTITY, identity) or first_choice(run)
    parity, as_trained = _write_and_prove(work, choice)
    if is_open(run, choice):
        other = compare(as_trained, work.logits(work.merged(ORIGINAL), None))
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

    def logits(self, weights: Weights, adapter: Path | None) -> torch.Tensor:
        """Logits on the dataset's rows."""
        return logits(weights, adapter, sample_rows(self.run.paths.parity_rows, self.folder))


def _dequantized(run: RunConfig, base: Checkpoint, model: PreTrainedModel) -> Dequantized | None:
    quantization = run.spec.effective_quantization
    return None if quantization is None else Dequantized(base, quantized_names(model), quantization)


def _write_and_prove(work: _Work, choice: BaseChoice) -> tuple[Parity, torch.Tensor]:
    """Write the merged model's folder and measure its parity; one that lost it is not left behind.

    Returns the reference's logits as well: those of the base that was folded into, with the adapter beside it.
    """
    run, folder, layout = work.run, work.folder, work.layout
    merged = work.merged(choice.base)
    _open_folder(folder, f"{work.identity}\n{choice.encode()}")
    _check_room(folder, layout)
    for file, slots in layout.files.items():
        _write_file(folder / file, slots, merged)
    copy_sidecars(work.base.folder, run.paths.adapter, folder)
    write_config(work.base.config(), folder, run.spec.merge.dtype, layout.unties)
    write_index(layout, folder)
    expected = work.logits(merged.base, run.paths.adapter)
    parity = compare(expected, work.logits(Checkpoint.open(folder, work.base.device), None))
    changed = {slot.dtype for slots in layout.files.values() for slot in slots if merged.changes(slot)}
    try:
        check(parity, changed, run.spec.merge.max_parity_difference)
    except StageFailure:
        shutil.rmtree(folder)
        raise
    return parity, expected


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


def _write_file(path: Path, slots: Sequence[Slot], merged: Merged) -> None:
    if path.exists():  # a file bears its name only once it is whole
        return
    write_shard(path, slots, merged.content)
    log.info("%s written", path.name)


def _put_in_place(beside: Path, merged: Path) -> None:
    (beside / IDENTITY).unlink()
    if merged.exists():  # made from another adapter or another base
        shutil.rmtree(merged)
    sync_folder(beside)
    beside.rename(merged)
    sync_folder(merged.parent)
