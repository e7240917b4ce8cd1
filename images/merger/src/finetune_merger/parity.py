"""Does the merged model answer as the base model with its adapter does? Logits of both, compared."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from finetune_operator.api.outcome import ExitCode, Figure, StageFailure

log = logging.getLogger(__name__)

_TOKENS = 16
RELATIVE_LIMIT: Mapping[str, float] = {"F32": 1e-3, "F16": 0.1, "BF16": 0.5}
"""Largest difference of a logit by default, as a share of the standard deviation of the reference's logits, for the
coarsest format of a changed tensor. Where they come from: docs/decisions/0005-merge-parity.md."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the logits of two models are apart."""

    max_difference: float
    mean_difference: float
    divergence: float
    """Mean Kullback-Leibler divergence of the next-token distributions, reference to merged, in nats."""
    scale: float
    """Standard deviation of the reference's logits."""

    def figures(self) -> dict[str, Figure]:
        """As the termination message and result.json bear them."""
        return {
            "mergeMaxDifference": _short(self.max_difference),
            "mergeMeanDifference": _short(self.mean_difference),
            "mergeKl": _short(self.divergence),
        }


def compare(expected: torch.Tensor, found: torch.Tensor) -> Parity:
    """Compare the logits (tokens, vocabulary) of the reference with others."""
    # A few tokens at a time: with a large vocabulary each step over all of them would take hundreds of megabytes.
    parts = [_compare(*part) for part in zip(torch.split(expected, _TOKENS), torch.split(found, _TOKENS), strict=True)]
    most, differences, divergences = torch.stack(parts).unbind(1)
    return Parity(
        max_difference=most.max().item(),
        mean_difference=differences.sum().item() / expected.numel(),
        # Rounding takes a divergence of nothing a hair below zero.
        divergence=(divergences.sum() / len(expected)).clamp(min=0).item(),
        scale=expected.std().item(),
    )


def _compare(expected: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """Largest difference of a logit, the sum of all differences, and the sum of the tokens' divergences."""
    difference = (found - expected).abs()
    reference, compared = expected.log_softmax(-1), found.log_softmax(-1)
    divergence = (reference.exp() * (reference - compared)).sum()
    return torch.stack([difference.max(), difference.sum(), divergence]).double()


def check(parity: Parity, formats: set[str], limit: str | None) -> None:
    """Raise StageFailure (PARITY_LOST) where the difference is over the limit.

    ``formats`` are those of the changed tensors; ``limit`` is merge.maxParityDifference.
    """
    log.info("parity %s, standard deviation of the logits %.4g", parity, parity.scale)
    allowed = float(limit) if limit is not None else default_limit(parity.scale, formats)
    # A comparison that is not a number is a difference, hence "not within" rather than "over".
    if not parity.max_difference <= allowed or not math.isfinite(parity.divergence):
        raise StageFailure(
            ExitCode.PARITY_LOST,
            f"the merged model differs from base + adapter: a logit by up to {parity.max_difference:.4g}, on average by "
            f"{parity.mean_difference:.4g} (Kullback-Leibler divergence {parity.divergence:.4g}); at most {allowed:.4g} was "
            f"expected{'' if limit is None else ' (merge.maxParityDifference)'}. Set merge.dtype to FP32, allow more with "
            "merge.maxParityDifference, or serve un-merged with serving.mode Adapter.",
            **parity.figures(),
            mergeDifferenceLimit=_short(allowed),
        )


def default_limit(scale: float, formats: set[str]) -> float:
    """Largest difference that rounding alone explains, for logits of this standard deviation."""
    return scale * max((RELATIVE_LIMIT[name] for name in formats), default=RELATIVE_LIMIT["F32"])


def _short(value: float) -> float:
    return float(f"{value:.6g}")
