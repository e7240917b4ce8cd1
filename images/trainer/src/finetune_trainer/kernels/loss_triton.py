"""Cross entropy and its gradient in Triton, over the logits themselves: one program a token."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096


@triton.jit
def _loss(logits, targets, losses, vocabulary, stride, BLOCK: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    base = logits + row * stride
    target = tl.load(targets + row)
    wanted = tl.load(base + target).to(tl.float32)
    # The largest so far, and the sum of the exponentials relative to it, place by place: arXiv 1805.02867.
    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, vocabulary, BLOCK):
        places = begin + tl.arange(0, BLOCK)
        values = tl.load(base + places, mask=places < vocabulary, other=float("-inf")).to(tl.float32)
        larger = tl.maximum(largest, values)
        total = total * tl.exp(tl.where(largest == larger, 0.0, largest - larger)) + tl.where(
            places < vocabulary, tl.exp(values - larger), 0.0
        )
        largest = larger
    top = tl.max(largest, axis=0)
    whole = top + tl.log(tl.sum(total * tl.exp(largest - top), axis=0))
    tl.store(losses + row, whole - wanted)
    for begin in range(0, vocabulary, BLOCK):
        places = begin + tl.arange(0, BLOCK)
        inside = places < vocabulary
        values = tl.load(base + places, mask=inside, other=0.0).to(tl.float32)
        chances = tl.exp(values - whole) - tl.where(places == target, 1.0, 0.0)
        tl.store(base + places, chances.to(logits.dtype.element_ty), mask=inside)


def loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """As in Operations; the gradients are where the logits were."""
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    _loss[(len(logits),)](logits, targets, losses, logits.shape[1], logits.stride(0), BLOCK=_BLOCK, num_warps=8)
    return losses, logits
