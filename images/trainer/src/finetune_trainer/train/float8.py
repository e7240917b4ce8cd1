"""Whether a training's frozen weights may be rounded to float8 (training.precision: FP8Base)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from finetune_trainer.kernels.joined_linear import JoinedLinear
from finetune_trainer.train.say import say

TOLERANCE = 0.01
"""Change of the loss on the job's own rows, relative to the loss with weights in 16 bits, up to which they are rounded."""


def round_base(model: nn.Module, joined: Sequence[JoinedLinear], passes: Sequence[dict[str, Any]]) -> bool:
    """Round the weights, unless that changes the loss of ``passes`` by more than the tolerance. Returns whether they are.

    Both forms exist until the decision: a job that rounding does harm to trains in 16 bits, which take as much memory.
    """
    before = _loss(model, passes)
    kept = [each.frozen for each in joined]
    for each in joined:
        each.keep(each.in_float8())
    after = _loss(model, passes)
    change = abs(after - before) / before
    figures = f"the loss of the first rows goes from {before:.4f} to {after:.4f} by it ({change:.2%})"
    # Also where it is not a number.
    if not change <= TOLERANCE:
        for each, frozen in zip(joined, kept, strict=True):
            each.keep(frozen)
        say(
            f"train: the base is NOT rounded to float8, and computed in BF16: {figures}, at most {TOLERANCE:.0%} is allowed"
        )
        return False
    say(f"train: the base is rounded to float8: {figures}")
    return True


@torch.no_grad()
def _loss(model: nn.Module, passes: Sequence[dict[str, Any]]) -> float:
    """Loss of one learnt token. Adapters begin without effect, and dropout has none on layers of ours."""
    device = next(model.parameters()).device
    total = torch.zeros((), device=device)
    count = 0
    for inputs in passes:
        moved = {name: each.to(device) if isinstance(each, torch.Tensor) else each for name, each in inputs.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            total += model(**moved, num_items_in_batch=1).loss
        count += len(inputs["targets"])
    return (total / max(count, 1)).item()
