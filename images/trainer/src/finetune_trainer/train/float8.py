"""Whether a training's frozen weights may be rounded to float8 (training.precision: FP8Base)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from finetune_operator.api.outcome import BASE_NOT_ROUNDED, FLOAT8_LOSS_DIFFERENCE, Figure
from finetune_trainer.kernels.joined_linear import JoinedLinear
from finetune_trainer.train.say import say

TOLERANCE = 0.01
"""Change of the loss on the job's own rows, relative to the loss with weights in 16 bits, up to which they are rounded."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """What rounding the base to float8 does to the loss of the job's own rows; both are of one learnt token."""

    loss: float
    """With weights in 16 bits."""
    rounded_loss: float

    @property
    def change(self) -> float:
        """Relative to the loss in 16 bits."""
        return abs(self.rounded_loss - self.loss) / self.loss

    @property
    def is_harmless(self) -> bool:
        """Whether the weights are rounded; not where a loss is no number either."""
        return self.change <= TOLERANCE

    def __str__(self) -> str:
        losses = f"from {self.loss:.4f} to {self.rounded_loss:.4f}"
        return f"the loss of the first rows goes {losses} by rounding to float8 ({self.change:.2%}), at most {TOLERANCE:.0%} is allowed"

    def figures(self) -> dict[str, Figure]:
        """For the status, and for the event that the operator makes of a base that is not rounded."""
        # JSON has no number that is none.
        change = round(self.change, 6) if math.isfinite(self.change) else str(self.change)
        return {FLOAT8_LOSS_DIFFERENCE: change} | ({} if self.is_harmless else {BASE_NOT_ROUNDED: str(self)})


def round_base(model: nn.Module, joined: Sequence[JoinedLinear], passes: Sequence[dict[str, Any]]) -> Rounding:
    """Round the weights, unless that changes the loss of ``passes`` by more than the tolerance.

    Both forms exist until the decision: a job that rounding does harm to trains in 16 bits, which take as much memory.
    """
    before = _loss(model, passes)
    kept = [each.frozen for each in joined]
    for each in joined:
        each.keep(each.in_float8())
    after = _loss(model, passes)
    rounding = Rounding(before, after)
    if rounding.is_harmless:
        say(f"train: the base is rounded to float8: {rounding}")
        return rounding
    for each, frozen in zip(joined, kept, strict=True):
        each.keep(frozen)
    say(f"train: the base is NOT rounded to float8, and computed in BF16: {rounding}")
    return rounding


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
