"""Write safetensors files as their tensors come, so that none is ever held whole.

The format (github.com/huggingface/safetensors): eight bytes with the header's length, a JSON header with each tensor's
number format, shape and byte range, then the tensors end to end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from finetune_merger.checkpoint import BITS
from finetune_merger.layout import Slot
from finetune_operator.api.result import sync_folder

_ALIGNMENT = 8


def write_shard(path: Path, slots: Sequence[Slot], blocks: Callable[[Slot], Iterable[torch.Tensor]]) -> None:
    """Write one file: beside, fsynced, renamed. ``blocks`` gives a tensor's rows in order, in as many parts as it likes."""
    # Wide formats first keeps every tensor aligned to its own width, as safetensors' own writer does.
    ordered = sorted(slots, key=lambda slot: (-BITS[slot.dtype], slot.name))
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("wb") as file:
        file.write(_header(ordered))
        for slot in ordered:
            written = sum(file.write(_bytes(block)) for block in blocks(slot))
            if written != slot.size:
                raise ValueError(f"{slot.name}: {written} bytes came, {slot.size} were announced")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def _header(slots: Sequence[Slot]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for slot in slots:
        entries[slot.name] = {"dtype": slot.dtype, "shape": slot.shape, "data_offsets": (offset, offset + slot.size)}
        offset += slot.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes(block: torch.Tensor) -> memoryview:
    # numpy knows no bf16, so the elements are handed over as plain bytes.
    array: np.ndarray[tuple[int], np.dtype[np.uint8]] = block.contiguous().view(-1).view(torch.uint8).numpy()
    return array.data
