"""How the frozen weights of joined linear layers are kept: in 16 or 32 bits, in bitsandbytes' 4 bits, or in float8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear as product

from finetune_trainer.kernels.operations import Operations


class Edged(Protocol):
    """Weights that are ready for a product, with ``a`` (room, inputs) and ``b`` (outputs, room) to write adapters to."""

    @property
    def a(self) -> Tensor: ...

    @property
    def b(self) -> Tensor: ...

    def of_input(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(rows, inputs + room) to (rows, outputs)."""

    def of_narrow_input(self, x: Tensor, low: Tensor, bias: Tensor | None) -> Tensor:
        """As ``of_input``, of an input in two parts: (rows, inputs) and (rows, room)."""

    def of_output(self, dy: Tensor) -> Tensor:
        """(rows, outputs + room) to (rows, inputs)."""


class Frozen(Protocol):
    """Weights that are kept."""

    keeps_edges: ClassVar[bool]
    """Whether ``edged`` gives the same memory each time, with what was written to its edges."""

    def edged(self) -> Edged:
        """Make them ready. What is given may hold much memory: let go of it after the product."""

    def lend(self, linears: Sequence[Any]) -> None:
        """Let the layers look at what is kept here, so that it is not kept twice."""


@dataclass(frozen=True, slots=True)
class DenseWeights:
    """One matrix (outputs + room, inputs + room): the weights, with B to the right and A below."""

    keeps_edges: ClassVar[bool] = True
    matrix: Tensor
    outputs: int
    inputs: int

    @property
    def a(self) -> Tensor:
        """The strip below."""
        return self.matrix[self.outputs :, : self.inputs]

    @property
    def b(self) -> Tensor:
        """The strip to the right."""
        return self.matrix[: self.outputs, self.inputs :]

    def of_input(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """One product, the low-rank update in it."""
        return product(x, self.matrix[: self.outputs], bias)

    def of_narrow_input(self, x: Tensor, low: Tensor, bias: Tensor | None) -> Tensor:
        """Two products."""
        y = product(x, self.matrix[: self.outputs, : self.inputs], bias)
        return y.addmm_(low, self.b.t()) if low.shape[1] else y

    def of_output(self, dy: Tensor) -> Tensor:
        """One product, the low-rank update in it."""
        return dy @ self.matrix[:, : self.inputs]

    def edged(self) -> Edged:
        """They are ready as they are."""
        return self

    def lend(self, linears: Sequence[Any]) -> None:
        """Without the edges."""
        for linear, rows in rows_of(linears):
            linear.weight.data = self.matrix[rows, : self.inputs]


class FourBitWeights:
    """Weights in bitsandbytes' formats, made dense for each product and gone after it (QLoRA, arXiv 2305.14314)."""

    keeps_edges: ClassVar[bool] = False

    def __init__(self, linears: Sequence[Any], room: int, dtype: torch.dtype, operations: Operations) -> None:
        self._linears, self._room, self._dtype, self._operations = linears, room, dtype, operations

    def edged(self) -> Edged:
        """Dense weights in memory of their own."""
        weights = _empty(self._linears, self._room, self._dtype)
        for linear, rows in rows_of(self._linears):
            self._operations.dequantize(linear.weight, weights.matrix[rows, : weights.inputs])
        return weights

    def lend(self, linears: Sequence[Any]) -> None:
        """They are the layers' own."""


def frozen_weights(linears: Sequence[Any], room: int, dtype: torch.dtype, operations: Operations) -> Frozen:
    """Take over the weights of the layers, which from then on look at what is kept here."""
    if any(is_4bit(linear) for linear in linears):
        return FourBitWeights(linears, room, dtype, operations)
    weights = _empty(linears, room, dtype)
    for linear, rows in rows_of(linears):
        weights.matrix[rows, : weights.inputs] = linear.weight.detach()
    weights.lend(linears)
    return weights


def _empty(linears: Sequence[Any], room: int, dtype: torch.dtype) -> DenseWeights:
    inputs, outputs = linears[0].in_features, sum(linear.out_features for linear in linears)
    matrix = torch.empty(outputs + room, inputs + room, dtype=dtype, device=linears[0].weight.device)
    # Ranks that no adapter fills must add nothing.
    matrix[outputs:].zero_()
    matrix[:outputs, inputs:].zero_()
    return DenseWeights(matrix, outputs, inputs)


def rows_of(linears: Sequence[Any]) -> list[tuple[Any, slice]]:
    """Each layer's rows among those of all."""
    found, end = [], 0
    for linear in linears:
        found.append((linear, slice(end, end + linear.out_features)))
        end += linear.out_features
    return found


def is_4bit(linear: torch.nn.Module) -> bool:
    """Whether a layer is bitsandbytes' 4-bit one; by name, as the library is slow to import and most jobs do without."""
    return type(linear).__name__ == "Linear4bit"
