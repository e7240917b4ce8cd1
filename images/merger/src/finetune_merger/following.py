"""Two models that compute while the merged one is written: base + adapter, and the merged model from what lies in its files.

Each tensor is read from the disk once: the writing goes first, and both models take a tensor as soon as it is written, while
memory still holds that part of both files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from finetune_merger.checkpoint import Checkpoint, TensorInfo
from finetune_merger.merged import Merged
from finetune_merger.rows import RowReader
from finetune_merger.streamed import logits_of, open_streamed
from finetune_merger.weights import Weights
from finetune_merger.writer import open_written
from finetune_merger.writing import Writing


def compute_both(
    merged: Merged, adapter: Path, rows: Sequence[torch.Tensor], writing: Writing
) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of base + adapter, and those of the merged model as it lies in the files that are being written."""
    folder, device = merged.folder, merged.device
    # Opened one after the other: what makes a model without weights changes torch for all threads meanwhile.
    reference = open_streamed(Following(merged.base, writing), adapter)
    made = open_streamed(Following(Unfinished(folder, writing.tensors, device), writing))
    with (
        _half_of_the_processors() as half,
        ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(half,)) as beside,
    ):
        found = beside.submit(logits_of, made, rows, device)
        expected = logits_of(reference, rows, device)
        return expected, found.result()


@contextmanager
def _half_of_the_processors() -> Iterator[int]:
    """Have torch use half of its threads in this one; yields how many."""
    whole = torch.get_num_threads()
    half = max(1, whole // 2)
    torch.set_num_threads(half)
    try:
        yield half
    finally:
        torch.set_num_threads(whole)


@dataclass(frozen=True, slots=True)
class Following:
    """A model's tensors, each handed out once the writing got to it: so that it is read while memory still holds its file."""

    inner: Weights
    writing: Writing

    @property
    def folder(self) -> Path:
        """Folder with the model's configuration."""
        return self.inner.folder

    @property
    def device(self) -> torch.device:
        """Where they are computed with."""
        return self.inner.device

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What there is."""
        return self.inner.tensors

    def view(self, name: str) -> AbstractContextManager[RowReader]:
        """The rows of a tensor."""
        self.writing.wait_for(name)
        return self.inner.view(name)

    def load(self, name: str) -> torch.Tensor:
        """One whole tensor."""
        self.writing.wait_for(name)
        return self.inner.load(name)


class Unfinished(Checkpoint):
    """The merged model as it lies in files of which some may still be in writing."""

    __slots__ = ()

    def _open(self, file: str) -> IO[bytes]:
        return open_written(self.folder / file)
