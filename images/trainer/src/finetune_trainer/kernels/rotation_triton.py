"""Rotary positions (arXiv 2104.09864) and the norm of heads before them, in Triton: one program a token and group of heads."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _halves(base, stride, heads, HEADS: tl.constexpr, HALF: tl.constexpr):
    rows = tl.arange(0, HEADS)[:, None]
    columns = tl.arange(0, HALF)[None, :]
    inside = rows < heads
    first = base + rows * stride + columns
    return first, first + HALF, inside


@triton.jit
def _forward(
    x,
    out,
    cos,
    sin,
    weight,
    row_stride,
    out_stride,
    heads,
    eps,
    NORM: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    low_at, high_at, inside = _halves(x + token * row_stride, 2 * HALF, heads, HEADS, HALF)
    low = tl.load(low_at, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(high_at, mask=inside, other=0.0).to(tl.float32)
    columns = tl.arange(0, HALF)[None, :]
    if NORM:
        scale = tl.rsqrt((tl.sum(low * low, 1) + tl.sum(high * high, 1)) / (2 * HALF) + eps)[:, None]
        kind = x.dtype.element_ty
        low = (low * scale).to(kind).to(tl.float32) * tl.load(weight + columns).to(tl.float32)
        high = (high * scale).to(kind).to(tl.float32) * tl.load(weight + HALF + columns).to(tl.float32)
    # Both halves of a token's angles are the same.
    cosine = tl.load(cos + token * 2 * HALF + columns).to(tl.float32)
    sine = tl.load(sin + token * 2 * HALF + columns).to(tl.float32)
    low_to, high_to, _ = _halves(out + token * out_stride, 2 * HALF, heads, HEADS, HALF)
    kind = out.dtype.element_ty
    tl.store(low_to, (low * cosine - high * sine).to(kind), mask=inside)
    tl.store(high_to, (high * cosine + low * sine).to(kind), mask=inside)


@triton.jit
def _backward(
    grad,
    x,
    out,
    cos,
    sin,
    weight,
    grad_stride,
    x_stride,
    out_stride,
    heads,
    eps,
    NORM: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    low_at, high_at, inside = _halves(grad + token * grad_stride, 2 * HALF, heads, HEADS, HALF)
    turned_low = tl.load(low_at, mask=inside, other=0.0).to(tl.float32)
    turned_high = tl.load(high_at, mask=inside, other=0.0).to(tl.float32)
    columns = tl.arange(0, HALF)[None, :]
    cosine = tl.load(cos + token * 2 * HALF + columns).to(tl.float32)
    sine = tl.load(sin + token * 2 * HALF + columns).to(tl.float32)
    low = turned_low * cosine + turned_high * sine
    high = turned_high * cosine - turned_low * sine
    if NORM:
        low_x, high_x, _ = _halves(x + token * x_stride, 2 * HALF, heads, HEADS, HALF)
        first = tl.load(low_x, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(high_x, mask=inside, other=0.0).to(tl.float32)
        scale = tl.rsqrt((tl.sum(first * first, 1) + tl.sum(second * second, 1)) / (2 * HALF) + eps)[:, None]
        first, second = first * scale, second * scale
        low *= tl.load(weight + columns).to(tl.float32)
        high *= tl.load(weight + HALF + columns).to(tl.float32)
        shared = ((tl.sum(low * first, 1) + tl.sum(high * second, 1)) / (2 * HALF))[:, None]
        low, high = scale * (low - first * shared), scale * (high - second * shared)
    low_to, high_to, _ = _halves(out + token * out_stride, 2 * HALF, heads, HEADS, HALF)
    kind = out.dtype.element_ty
    tl.store(low_to, low.to(kind), mask=inside)
    tl.store(high_to, high.to(kind), mask=inside)


def forward(x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, eps: float) -> None:
    """As in Operations."""
    tokens, heads, size = x.shape
    _forward[(tokens,)](
        x, out, cos, sin, x if weight is None else weight, x.stride(0), out.stride(0), heads, eps,
        NORM=weight is not None, HEADS=triton.next_power_of_2(heads), HALF=size // 2,
    )  # fmt: skip


def backward(grad: Tensor, x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, eps: float) -> None:
    """As in Operations."""
    tokens, heads, size = grad.shape
    _backward[(tokens,)](
        grad, x, out, cos, sin, x if weight is None else weight,
        grad.stride(0), x.stride(0), out.stride(0), heads, eps,
        NORM=weight is not None, HEADS=triton.next_power_of_2(heads), HALF=size // 2,
    )  # fmt: skip
