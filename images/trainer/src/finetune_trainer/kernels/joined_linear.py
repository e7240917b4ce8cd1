"""Linear layers that read the same input, and their low-rank adapters (LoRA, arXiv 2106.09685), as one matrix product.

The frozen weights W of all layers lie one below the other, with the scaled adapters' halves on two of the edges:

                 inputs   room              y  = [x | x A'] · [W | B]'
        outputs    W       B                dx = [dy | dy B] · [W ; A]
        room       A

so that adding the low-rank update costs a few more columns of the product, and no pass over its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from finetune_trainer.kernels.float8_weights import Float8Weights
from finetune_trainer.kernels.frozen_weights import DenseWeights, Edged, Frozen, frozen_weights, rows_of
from finetune_trainer.kernels.operations import Operations

_ROOM = 64
"""Ranks are filled up to a multiple of this: a tile of the product."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One layer's ``a`` (rank, inputs), ``b`` (outputs, rank), and what their product is multiplied by."""

    a: Tensor
    b: Tensor
    scale: float


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an adapter lies: its layer's outputs among all outputs, and its ranks in the room."""

    adapter: Adapter
    outputs: slice
    ranks: slice


class JoinedLinear:
    """Several linear layers, whose weights are frozen, or all trained and without adapters."""

    def __init__(
        self,
        linears: Sequence[Any],
        adapters: Sequence[Adapter | None],
        dtype: torch.dtype,
        operations: Operations,
    ) -> None:
        """``linears`` share their input; ``adapters`` has each one's. ``dtype`` is what is computed in."""
        self._linears, self._operations = linears, operations
        self.learns: bool = linears[0].weight.requires_grad
        """Whether the weights themselves are trained."""
        self.dtype, self._device = dtype, linears[0].weight.device
        self.inputs: int = linears[0].in_features
        self.outputs: int = sum(linear.out_features for linear in linears)
        self._places = _places(linears, adapters)
        ranks = sum(len(place.adapter.a) for place in self._places)
        self.room = -(-ranks // _ROOM) * _ROOM
        self._bias = _joined_bias(linears, dtype)
        self._frozen = frozen_weights(linears, self.room, dtype, operations)

    @property
    def trained(self) -> list[Tensor]:
        """What is trained, in the order in which ``gradients`` gives theirs: the adapters' halves, or the layers' own."""
        if not self.learns:
            return [half for place in self._places for half in (place.adapter.a, place.adapter.b)]
        biased = [linear.bias for linear in self._linears if linear.bias is not None]
        return [*(linear.weight for linear in self._linears), *biased]

    @property
    def frozen(self) -> Frozen:
        """The weights as they are kept."""
        return self._frozen

    def keep(self, frozen: Frozen) -> None:
        """Keep the weights in another way: those of ``in_float8``, or of ``frozen`` before."""
        self._frozen = frozen
        frozen.lend(self._linears)

    def in_float8(self) -> Frozen:
        """The weights rounded to 8 bits. Raises TypeError where they have 4."""
        if not isinstance(self._frozen, DenseWeights):
            raise TypeError(f"weights kept as {type(self._frozen).__name__}, expected DenseWeights")
        return Float8Weights(self._frozen, self._operations)

    def wide_input(self, rows: int) -> Tensor:
        """Memory for ``forward``: (rows, inputs + room), of which the caller fills the inputs."""
        return torch.empty(rows, self.inputs + self.room, dtype=self.dtype, device=self._device)

    def wide_output(self, rows: int) -> Tensor:
        """Memory for ``backward``: (rows, outputs + room), of which the caller fills the outputs."""
        return torch.empty(rows, self.outputs + self.room, dtype=self.dtype, device=self._device)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` is a filled ``wide_input``; its room is written here. Returns (rows, outputs)."""
        weights = self._with_adapters()
        if self.room:
            torch.mm(x[:, : self.inputs], weights.a.t(), out=x[:, self.inputs :])
        return weights.of_input(x, self._bias)

    def forward_narrow(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As ``forward``, for an ``x`` (rows, inputs) that is better left where it is. Returns its low-rank part, too."""
        weights = self._with_adapters()
        low = x @ weights.a.t()
        return weights.of_narrow_input(x, low, self._bias), low

    def backward(self, dy: Tensor) -> Tensor:
        """``dy`` is a filled ``wide_output``; its room is written here. Returns the gradient of the input."""
        weights = self._with_adapters(again=True)
        self._fill(dy, weights)
        return weights.of_output(dy)

    def fill(self, dy: Tensor) -> None:
        """Write the room of ``dy`` as ``backward`` does, where nobody wants the gradient of the input."""
        self._fill(dy, self._with_adapters(again=True))

    def _fill(self, dy: Tensor, weights: Edged) -> None:
        if self.room:
            torch.mm(dy[:, : self.outputs], weights.b, out=dy[:, self.outputs :])

    def gradients(self, x: Tensor, low: Tensor, dy: Tensor) -> list[Tensor]:
        """Gradients of ``trained``, from the input (rows, inputs), its low-rank part (rows, room) and ``dy`` after ``backward``."""
        if self.learns:
            return self._own_gradients(x, dy)
        if not self.room:
            return []
        of_a = dy[:, self.outputs :].t() @ x
        of_b = dy[:, : self.outputs].t() @ low
        found = []
        for place in self._places:
            a, b = place.adapter.a, place.adapter.b
            # B was scaled where it was laid, so that the gradient of A is complete.
            found += [of_a[place.ranks].to(a.dtype), of_b[place.outputs, place.ranks].to(b.dtype) * place.adapter.scale]
        return found

    def _own_gradients(self, x: Tensor, dy: Tensor) -> list[Tensor]:
        of_weights, of_biases = dy.t() @ x, [] if self._bias is None else [dy.sum(0)]
        places = rows_of(self._linears)
        found = [of_weights[rows] for _, rows in places]
        return [*found, *(each[rows] for each in of_biases for linear, rows in places if linear.bias is not None)]

    def _with_adapters(self, *, again: bool = False) -> Edged:
        weights = self._frozen.edged()
        if again and self._frozen.keeps_edges:
            # As the way forward left them.
            return weights
        for place in self._places:
            weights.a[place.ranks] = place.adapter.a.detach()
            torch.mul(place.adapter.b.detach(), place.adapter.scale, out=weights.b[place.outputs, place.ranks])
        return weights


def _places(linears: Sequence[Any], adapters: Sequence[Adapter | None]) -> list[_Place]:
    ends = list(accumulate(linear.out_features for linear in linears))
    tops = list(accumulate(0 if adapter is None else len(adapter.a) for adapter in adapters))
    return [
        _Place(adapter, slice(end - linear.out_features, end), slice(top - len(adapter.a), top))
        for linear, adapter, end, top in zip(linears, adapters, ends, tops, strict=True)
        if adapter is not None
    ]


def _joined_bias(linears: Sequence[Any], dtype: torch.dtype) -> Tensor | None:
    """The layers' biases one behind the other; from now on the layers look at them there."""
    if all(linear.bias is None for linear in linears):
        return None
    joined = torch.zeros(sum(linear.out_features for linear in linears), dtype=dtype, device=linears[0].weight.device)
    for linear, rows in rows_of(linears):
        if linear.bias is not None:
            joined[rows] = linear.bias.detach()
            linear.bias.data = joined[rows]
    return joined
