"""The arithmetic of the merge: in fp32, rounded once, a block of rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from finetune_merger.adapter import LowRank
from finetune_merger.rows import RowReader, spans
from finetune_operator.api.outcome import ExitCode, StageFailure

BLOCK = 1 << 16
"""Elements folded at a time: 256 KiB in fp32, so that the passes over a block stay in a processor's own cache. With 4 MiB
a processor folds a quarter as many elements a second."""
_GPU_BLOCK = 1 << 22


def converted(rows: RowReader, shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """A tensor in another number format, block by block."""
    for start, stop in spans(shape, BLOCK):
        block = rows[start:stop]
        yield _finite(block.to(dtype), block)


def folded(rows: RowReader, update: LowRank, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """The weight with the adapter folded in, block by block: round(W + scale · B·A) to ``dtype``.

    The product, the sum and DoRA's norms are taken in fp32 and rounded once. bf16 adapters are not rounded in between,
    which PEFT's own merge does.
    """
    size = BLOCK if update.a.device.type == "cpu" else _GPU_BLOCK
    if update.transposed and update.magnitude is not None:
        # Here a block of stored rows is a block of inputs, but DoRA's norms run over all of them.
        size = math.prod(update.shape)
    for start, stop in spans(update.shape, size):
        block = _sum(rows[start:stop], update, start, stop)
        yield _finite(block.to(dtype), block)


def _sum(weight: torch.Tensor, update: LowRank, start: int, stop: int) -> torch.Tensor:
    """Stored rows start to stop of the weight, with the update."""
    if update.transposed:
        delta = (update.b.float() @ update.a[:, start:stop].float()).T.contiguous()
    else:
        delta = update.b[start:stop].float() @ update.a.float()
    # Widened first: adding 16-bit values to 32-bit ones takes twice as long as both steps.
    total = delta.mul_(update.scale).add_(weight.float())
    if update.magnitude is None:
        return total
    outputs = total.T if update.transposed else total
    norm = torch.linalg.norm(outputs, dim=1)
    wanted = update.magnitude if update.transposed else update.magnitude[start:stop]
    outputs.mul_((wanted.float() / norm).view(-1, 1))
    return total


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
