"""RMSNorm (arXiv 1910.07467) in Triton: one program a row, sums in float32."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_PROGRAMS = 1024


@triton.jit
def _forward(x, weight, out, rstd, width, eps, x_stride, out_stride, BLOCK: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    values = tl.load(x + row * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values, axis=0) / width + eps)
    tl.store(rstd + row, scale)
    normed = (values * scale).to(x.dtype.element_ty).to(tl.float32)
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + columns, (normed * gain).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    grad, x, weight, rstd, carried, out, sums, rows, width, stride, LEARNS: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    program = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    of_gain = tl.zeros((BLOCK,), tl.float32)
    for number in range(program, rows, tl.num_programs(0)):
        row = tl.cast(number, tl.int64) * stride
        scale = tl.load(rstd + number)
        normed = tl.load(x + row + columns, mask=inside, other=0.0).to(tl.float32) * scale
        given = tl.load(grad + row + columns, mask=inside, other=0.0).to(tl.float32)
        if LEARNS:
            of_gain += given * normed
        gained = given * gain
        shared = tl.sum(gained * normed, axis=0) / width
        total = scale * (gained - normed * shared)
        total += tl.load(carried + row + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + row + columns, total.to(out.dtype.element_ty), mask=inside)
    if LEARNS:
        tl.store(sums + program * width + columns, of_gain, mask=inside)


def forward(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> Tensor:
    """As in Operations."""
    rstd = torch.empty(len(x), dtype=torch.float32, device=x.device)
    _forward[(len(x),)](x, weight, out, rstd, x.shape[1], eps, x.stride(0), out.stride(0), **_block(x.shape[1]))
    return rstd


def backward(grad: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, carried: Tensor) -> tuple[Tensor, Tensor | None]:
    """As in Operations."""
    rows, width = x.shape
    out = torch.empty_like(x)
    learns = weight.requires_grad
    # Each program adds up the gain's gradient over its rows.
    programs = min(rows, _PROGRAMS) if learns else rows
    sums = torch.empty(programs if learns else 0, width, dtype=torch.float32, device=x.device)
    _backward[(programs,)](grad, x, weight, rstd, carried, out, sums, rows, width, x.stride(0), learns, **_block(width))
    return out, sums.sum(0).to(weight.dtype) if learns else None


def _block(width: int) -> dict[str, Any]:
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": min(max(block // 512, 1), 16)}
