"""Frozen weights rounded to float8 (E4M3, arXiv 2209.05433), each row of an operand with a scale of its own.

Activations and gradients are rounded row by row just before a product; the low-rank updates stay in 16 bits. Products in
float8 read both operands along the summed dimension, so that the weights are kept in both orientations: as much memory
as in 16 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from finetune_trainer.kernels.frozen_weights import DenseWeights, rows_of
from finetune_trainer.kernels.operations import Operations


class Float8Weights:
    """Weights of joined linear layers, and 16-bit edges for their adapters."""

    keeps_edges: ClassVar[bool] = True

    def __init__(self, dense: DenseWeights, operations: Operations) -> None:
        weights = dense.matrix[: dense.outputs, : dense.inputs]
        self._operations, self._dtype = operations, weights.dtype
        self._there = operations.to_float8(weights)
        self._back = operations.to_float8(weights.t().contiguous())
        self.a, self.b = dense.a.clone(), dense.b.clone()

    def lend(self, linears: Sequence[Any]) -> None:
        """In the orientation that layers have."""
        for linear, rows in rows_of(linears):
            linear.weight.data = self._there[0][rows]

    def edged(self) -> Float8Weights:
        """They are ready as they are."""
        return self

    def of_input(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(rows, inputs + room) to (rows, outputs)."""
        inputs = self.a.shape[1]
        return self.of_narrow_input(x[:, :inputs], x[:, inputs:], bias)

    def of_narrow_input(self, x: Tensor, low: Tensor, bias: Tensor | None) -> Tensor:
        """(rows, inputs) and (rows, room) to (rows, outputs)."""
        y = self._product(x, self._there)
        if bias is not None:
            y += bias
        return y.addmm_(low, self.b.t()) if len(self.a) else y

    def of_output(self, dy: Tensor) -> Tensor:
        """(rows, outputs + room) to (rows, inputs)."""
        dx = self._product(dy[:, : len(self.b)], self._back)
        return dx.addmm_(dy[:, len(self.b) :], self.a) if len(self.a) else dx

    def _product(self, left: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        return self._operations.float8_product(self._operations.to_float8(left), weights, self._dtype)
