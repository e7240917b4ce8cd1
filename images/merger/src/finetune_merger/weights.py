"""Where a model's tensors come from: a folder of files, or values that are computed when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch

from finetune_merger.checkpoint import TensorInfo
from finetune_merger.rows import RowReader


class Weights(Protocol):
    """The tensors of a model, by name."""

    @property
    def folder(self) -> Path:
        """Folder with the model's configuration."""

    @property
    def device(self) -> torch.device:
        """Where they are computed with."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What there is."""

    def view(self, name: str) -> AbstractContextManager[RowReader]:
        """The rows of a tensor of a format that can be computed with; none is read before it is asked for."""

    def load(self, name: str) -> torch.Tensor:
        """One whole tensor."""
