"""The arithmetic of the merge: in fp32, rounded once, a block of rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from finetune_merger.adapter import LowRank
from finetune_operator.api.outcome import ExitCode, StageFailure

BLOCK = 1 << 20
"""Elements folded at a time: 4 MiB in fp32, so that the passes over a block stay in the processor's cache."""


def converted(rows: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """A tensor in another number format, block by block. ``rows[a:b]`` must give rows a to b."""
    for start, stop in _spans(shape):
        block = rows[start:stop]
        yield _finite(block.to(dtype), block)


def folded(rows: Any, update: LowRank, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """The weight with the adapter folded in, block by block: round(W + scale · B·A) to ``dtype``.

    The product, the sum and DoRA's norms are taken in fp32 and rounded once. bf16 adapters are not rounded in between,
    which PEFT's own merge does.
    """
    if update.transposed:
        # Here a block of stored rows is a block of inputs, but DoRA's norms run over all of them.
        whole = _sum(rows[:].T, update, 0, update.shape[1]).T.contiguous()
        yield _finite(whole.to(dtype), whole)
        return
    for start, stop in _spans(update.shape):
        block = _sum(rows[start:stop], update, start, stop)
        yield _finite(block.to(dtype), block)


def _sum(weight: torch.Tensor, update: LowRank, start: int, stop: int) -> torch.Tensor:
    """Output rows start to stop of the weight (out, in) with the update."""
    delta = update.b[start:stop].float() @ update.a.float()
    total = delta.mul_(update.scale).add_(weight)
    if update.magnitude is None:
        return total
    norm = torch.linalg.norm(total, dim=1)
    return total.mul_((update.magnitude[start:stop].float() / norm).view(-1, 1))


def _spans(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    rows = shape[0]
    step = max(1, BLOCK // max(1, math.prod(shape[1:])))
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def _finite(rounded: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    # One value that is not finite makes the sum so, and a sum is four times as quick as looking at each.
    if not math.isfinite(rounded.sum(dtype=torch.float32).item()):
        found = "a value that is not finite" if not torch.isfinite(exact).all() else f"{exact.abs().max().item():.4g}"
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"a merged weight holds {found}, which {rounded.dtype} cannot hold; "
            "set merge.dtype to BF16 or FP32, or train with a lower training.learningRate.",
        )
    return rounded
