"""Tells when training has gone astray: a loss, gradient or weight that is infinite or not a number."""

from __future__ import annotations

import math

from torch import nn

MOST_OVERFLOWS = 40
"""Steps in a row: the scaler halves its factor with each, so that after so many no gradient is left of its 2^16."""


class FiniteGuard:
    """Looks at every step before the optimizer writes it into the weights."""

    def __init__(self, *, scales_loss: bool) -> None:
        """``scales_loss``: training is in float16, where a gradient that overflows is normal and the step is skipped."""
        self._scales_loss = scales_loss
        self._overflows = 0

    def problem(self, loss: float, norm: float) -> str | None:
        """What is wrong with a step's loss and gradient norm, if anything is."""
        found = f"loss {loss}, gradient norm {norm}"
        if not math.isfinite(loss):
            return found
        self._overflows = 0 if math.isfinite(norm) else self._overflows + 1
        if not self._overflows or (self._scales_loss and self._overflows < MOST_OVERFLOWS):
            return None
        return f"{found} for {self._overflows} steps in a row" if self._scales_loss else found


def weights_are_finite(model: nn.Module) -> bool:
    """Whether all weights that are trained are numbers."""
    return all(bool(weights.isfinite().all()) for weights in model.parameters() if weights.requires_grad)
