"""Rounding to float8 (E4M3, arXiv 2209.05433) in Triton: one program a row, which it reads twice, from the cache."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096


@triton.jit
def _quantize(x, out, scales, width, stride, BLOCK: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, width, BLOCK):
        places = begin + tl.arange(0, BLOCK)
        values = tl.load(x + row * stride + places, mask=places < width, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(values))
    scale = tl.maximum(tl.max(largest, axis=0), 1e-12) / 448.0
    tl.store(scales + row, scale)
    for begin in range(0, width, BLOCK):
        places = begin + tl.arange(0, BLOCK)
        values = tl.load(x + row * stride + places, mask=places < width, other=0.0).to(tl.float32)
        tl.store(out + row * width + places, (values / scale).to(out.dtype.element_ty), mask=places < width)


def to_float8(x: Tensor) -> tuple[Tensor, Tensor]:
    """As in Operations."""
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    _quantize[(rows,)](x, out, scales, width, x.stride(0), BLOCK=_BLOCK, num_warps=8)
    return out, scales
