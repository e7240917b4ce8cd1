"""The merged model's tensors, computed from the base model's when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from finetune_merger.adapter import Adapter
from finetune_merger.checkpoint import FLOATS, Checkpoint, TensorInfo
from finetune_merger.fold import converted, folded
from finetune_merger.layout import Layout, Slot
from finetune_merger.quantized import Dequantized
from finetune_merger.rows import RowReader
from finetune_merger.writer import Content, FileRange


@dataclass(frozen=True, slots=True)
class Merged:
    """Base model and adapter as one model, rounded as its files will hold it."""

    folder: Path
    """Folder with the merged model's configuration."""
    base: Checkpoint | Dequantized
    adapter: Adapter
    layout: Layout

    @property
    def device(self) -> torch.device:
        """Where tensors are put that are read."""
        return self.base.device

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """What there is."""
        return {
            slot.name: TensorInfo(file, slot.dtype, slot.shape)
            for file, slots in self.layout.files.items()
            for slot in slots
        }

    def content(self, slot: Slot) -> Content:
        """One tensor for its file; one that nothing changes as it lies in the base model's."""
        if self.changes(slot):
            return self._blocks(slot)
        stored = self.base.tensors[slot.source]
        return FileRange(self.base.folder / stored.file, stored.start, stored.size)

    def changes(self, slot: Slot) -> bool:
        """Whether a tensor differs from the one in the base model's file."""
        return (
            slot.name in self.adapter.touched
            or slot.dtype != self.base.tensors[slot.source].dtype
            or (isinstance(self.base, Dequantized) and slot.source in self.base.names)
        )

    @contextmanager
    def view(self, name: str) -> Iterator[RowReader]:
        """The rows of a tensor."""
        slot = self._slot(name)
        if self.changes(slot):
            yield self.load(name)
            return
        with self.base.view(slot.source) as rows:
            yield rows

    def load(self, name: str) -> torch.Tensor:
        """One whole tensor."""
        slot = self._slot(name)
        if not self.changes(slot):
            return self.base.load(slot.source)
        whole = torch.empty(slot.shape, dtype=FLOATS[slot.dtype], device=self.device)
        start = 0
        for block in self._blocks(slot):
            whole[start : start + len(block)] = block
            start += len(block)
        return whole

    def _slot(self, name: str) -> Slot:
        return next(slot for slots in self.layout.files.values() for slot in slots if slot.name == name)

    def _blocks(self, slot: Slot) -> Iterator[torch.Tensor]:
        update, replacement = self.adapter.updates.get(slot.name), self.adapter.replacements.get(slot.name)
        with self.base.view(slot.source) as view:
            rows = view if replacement is None else replacement
            if update is not None:
                yield from folded(rows, update, FLOATS[slot.dtype])
            else:
                yield from converted(rows, slot.shape, FLOATS[slot.dtype])
