"""bitsandbytes' 4-bit formats made dense in Triton, straight to where the product reads them.

bitsandbytes' own kernels write a matrix of their own, and first make another of the scales; copying it over would cost as
much again.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 2048
"""Packed bytes a program."""


@triton.jit
def _dequantize(
    packed,
    code,
    scales,
    scale_code,
    scale_scales,
    offset,
    out,
    total,
    width,
    out_stride,
    SIZE: tl.constexpr,
    SCALE_SIZE: tl.constexpr,
    NESTED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < total
    pair = tl.load(packed + places, mask=inside, other=0).to(tl.int32)
    first = 2 * places
    block = first // SIZE
    scale = tl.load(scales + block, mask=inside, other=0)
    if NESTED:
        outer = tl.load(scale_scales + block // SCALE_SIZE, mask=inside, other=0.0)
        scale = tl.load(scale_code + scale.to(tl.int32)) * outer + tl.load(offset)
    # The first of two weights is in the upper half of the byte.
    high = tl.load(code + (pair >> 4)) * scale
    low = tl.load(code + (pair & 15)) * scale
    both = tl.interleave(high, low).to(out.dtype.element_ty)
    weights = tl.program_id(0).to(tl.int64) * (2 * BLOCK) + tl.arange(0, 2 * BLOCK)
    to = out + (weights // width) * out_stride + weights % width
    tl.store(to, both, mask=weights < 2 * total)


def dequantize(packed: Tensor, state: Any, out: Tensor) -> None:
    """``packed`` holds two weights a byte, row by row; ``state`` is bitsandbytes' QuantState."""
    outer = state.state2
    total = packed.numel()
    _dequantize[(triton.cdiv(total, _BLOCK),)](
        packed, state.code, state.absmax, *((outer.code, outer.absmax, state.offset) if outer else (state.absmax,) * 3),
        out, total, out.shape[1], out.stride(0),
        SIZE=state.blocksize, SCALE_SIZE=outer.blocksize if outer else 1, NESTED=outer is not None, BLOCK=_BLOCK,
    )  # fmt: skip
