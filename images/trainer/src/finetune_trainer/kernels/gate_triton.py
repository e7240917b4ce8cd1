"""The gated MLP's middle, silu(gate) · up (arXiv 2002.05202), in Triton: a program a piece of a row."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _forward(gate_up, out, width, in_stride, out_stride, BLOCK: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    gate = tl.load(gate_up + row * in_stride + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * in_stride + width + columns, mask=inside, other=0.0).to(tl.float32)
    silu = (gate * tl.sigmoid(gate)).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * out_stride + columns, (silu * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(grad, gate_up, out, width, in_stride, out_stride, BLOCK: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    gate = tl.load(gate_up + row * in_stride + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * in_stride + width + columns, mask=inside, other=0.0).to(tl.float32)
    given = tl.load(grad + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    chance = tl.sigmoid(gate)
    silu = gate * chance
    kind = out.dtype.element_ty
    of_gate = given * up * (chance + silu * (1.0 - chance))
    tl.store(out + row * out_stride + columns, of_gate.to(kind), mask=inside)
    tl.store(out + row * out_stride + width + columns, (given * silu).to(kind), mask=inside)
    # In place of the gradient: nobody reads it again, and the product itself was not kept.
    tl.store(grad + row * width + columns, (silu.to(kind).to(tl.float32) * up).to(kind), mask=inside)


def forward(gate_up: Tensor, out: Tensor) -> None:
    """As in Operations."""
    width = out.shape[1]
    _forward[_grid(out)](gate_up, out, width, gate_up.stride(0), out.stride(0), BLOCK=_BLOCK, num_warps=4)


def backward(grad: Tensor, gate_up: Tensor, out: Tensor) -> None:
    """As in Operations."""
    width = grad.shape[1]
    _backward[_grid(grad)](grad, gate_up, out, width, gate_up.stride(0), out.stride(0), BLOCK=_BLOCK, num_warps=4)


def _grid(rows: torch.Tensor) -> tuple[int, int]:
    return len(rows), triton.cdiv(rows.shape[1], _BLOCK)
