"""How many tokens a pass has and how many layers recompute their activations, decided from memory that was measured.

Selective activation recomputation (arXiv 2205.05198), a whole layer at a time: the first layers are chosen, whose backward
pass comes last, when the activations of the others are gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MOST_TOKENS = 32_768
"""More tokens in a pass make it no faster: what a pass costs however small it is, is below a hundredth of it then."""
PASS_COST = 300
"""Tokens that could be computed in the time that a pass takes however small it is (7B, LoRA, H200: 15 ms)."""
SUM_COST = 300
"""As many for adding bf16 gradients to float32 sums: 10 bytes a weight moved, for 6 operations a weight and token."""
_RECOMPUTING = 1 / 3
"""What a forward pass is of a step."""


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that are free, and those that gradients and a pass take: so many, and so many more for each token."""

    free: float
    fixed: float
    per_token: float

    def tokens(self, kept: float) -> int:
        """Tokens of the largest pass beside ``kept`` bytes; below 1 where there is none."""
        return int((self.free - kept - self.fixed) / self.per_token)

    def towards(self, other: Room, share: float) -> Room:
        """The room where that share of the way to ``other`` is gone."""
        fixed = self.fixed + share * (other.fixed - self.fixed)
        return Room(self.free, fixed, self.per_token + share * (other.per_token - self.per_token))


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes that training needs beside the passes."""

    state: float
    """The optimizer's, and what several GPUs exchange gradients through."""
    gradients: float = 0
    """Gradients in bf16, whose float32 sums over several passes are twice as large. Others are in the room's fixed bytes."""


@dataclass(frozen=True, slots=True)
class PassPlan:
    """Tokens of the largest pass, and how many layers recompute their activations."""

    tokens: int
    recomputed: int

    def cost(self, step: int, layers: int) -> float:
        """What a step of so many tokens takes, in tokens."""
        return step * (1 + _RECOMPUTING * self.recomputed / layers) + PASS_COST * self.passes(step)

    def passes(self, step: int) -> int:
        """Passes of such a step."""
        return math.ceil(step / min(self.tokens, MOST_TOKENS))


def choose(
    counts: Sequence[int], layers: int, room: Callable[[int], Room], kept: Kept, longest: int, step: int
) -> PassPlan:
    """The plan that takes the least time, of those whose passes hold ``longest`` tokens.

    ``counts`` are the numbers of recomputed layers to choose from, in rising order; ``room`` tells what there is when so
    many layers recompute; ``step`` is the largest optimizer step's tokens. Where no pass holds the longest sequence, this is
    the plan with the largest passes.
    """
    plans: list[PassPlan] = []
    for count in counts:
        plans.append(PassPlan(tokens_that_fit(room(count), kept, step, count / layers), count))
        if plans[-1].tokens >= longest and plans[-1].passes(step) == 1:
            # Whatever recomputes more takes longer.
            break
    possible = [plan for plan in plans if plan.tokens >= longest]
    added = SUM_COST if kept.gradients else 0
    best = min(possible, key=lambda plan: plan.cost(step, layers) + added * (plan.passes(step) - 1), default=None)
    return best or max(plans, key=lambda plan: plan.tokens)


def tokens_that_fit(room: Room, kept: Kept, step: int, recomputed: float) -> int:
    """Tokens of a pass beside what is kept, where that share of the layers recompute.

    Steps that are one pass each begin without gradients, and bf16 weights then need no float32 sums.
    """
    tokens = room.tokens(kept.state)
    if recomputed < _MANY:
        # Gradients take the place of activations, layer by layer. At the end, less than a quarter of these is left.
        tokens = min(room.tokens(kept.state - kept.gradients), 4 * tokens)
    if step <= min(tokens, MOST_TOKENS):
        return tokens
    # The sums are twice as large as the gradients.
    return room.tokens(kept.state + kept.gradients)


_MANY = 0.75
"""Share of layers from which on the one layer that is computed again is more than a quarter of all activations."""
