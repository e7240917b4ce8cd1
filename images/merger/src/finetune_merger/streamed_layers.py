"""The two kinds of layers with large weights, computed from a few rows of them at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from finetune_merger.rows import spans
from finetune_merger.weights import Weights

BLOCK = 1 << 22
"""Weights multiplied at a time: 16 MiB in fp32."""


def stream_linear(layer: nn.Linear, weights: Weights, stored: str) -> None:
    """Have a linear layer compute from the tensor ``stored``."""
    layer.__class__ = _StreamedLinear
    layer.__dict__["source"] = (weights, stored)


class _StreamedLinear(nn.Linear):
    source: tuple[Weights, str]

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """The whole weight, for code that asks for it: DoRA takes its norms."""
        weights, stored = self.source
        return weights.load(stored).float()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        weights, stored = self.source
        outputs = inputs.new_empty((*inputs.shape[:-1], self.out_features))
        with weights.view(stored) as rows:
            for start, stop in spans((self.out_features, self.in_features), BLOCK):
                bias = None if self.bias is None else self.bias[start:stop]
                outputs[..., start:stop] = functional.linear(inputs, rows[start:stop].float(), bias)
        return outputs


def stream_embedding(layer: nn.Embedding, weights: Weights, stored: str) -> None:
    """Have an embedding read the rows of the tokens that it is asked for, and no others."""
    shape = weights.tensors[stored].shape
    absent = layer._parameters["weight"]

    def read(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        # Memory that the kernel gives out as zeros takes up room only where it is written.
        table = torch.from_numpy(np.zeros(shape, dtype=np.float32))
        with weights.view(stored) as rows:
            for token in inputs[0].unique().tolist():
                table[token] = rows[token : token + 1][0]
        layer._parameters["weight"] = nn.Parameter(table.to(weights.device), requires_grad=False)

    def drop(*_: Any) -> None:
        layer._parameters["weight"] = absent

    layer.register_forward_pre_hook(read)
    layer.register_forward_hook(drop)
