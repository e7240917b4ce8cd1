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
class Steps:
    """Tokens of a job's optimizer steps, on one device."""

    longest: int
    """Of the longest sequence, which no pass can be shorter than."""
    largest: int
    """Of the largest step that there could be."""
    some: Sequence[int]
    """Of some steps as they come, at least one."""


@dataclass(frozen=True, slots=True)
class PassPlan:
    """How steps are cut into passes, and how many layers recompute their activations."""

    at_once: int
    """Tokens of a step up to which it is one pass."""
    in_parts: int
    """Tokens of each pass where there are several."""
    recomputed: int

    def passes(self, step: int) -> int:
        """Passes of a step of so many tokens."""
        return 1 if step <= self.at_once else math.ceil(step / max(self.in_parts, 1))

    def holds(self, steps: Steps) -> bool:
        """Whether every step can be made."""
        return steps.largest <= self.at_once or steps.longest <= self.in_parts

    def lowered(self, share: float) -> PassPlan:
        """The plan with smaller passes."""
        return PassPlan(int(self.at_once * share), int(self.in_parts * share), self.recomputed)


def choose(counts: Sequence[int], layers: int, room: Callable[[int], Room], kept: Kept, steps: Steps) -> PassPlan:
    """The plan that takes the least time, of those that can make every step; if none can, that with the largest passes.

    ``counts`` are the numbers of recomputed layers to choose from, in rising order; ``room`` tells what there is when so
    many layers recompute.
    """
    plans: list[PassPlan] = []
    for count in counts:
        plans.append(_plan(room(count), kept, count, count / layers, steps.longest))
        if plans[-1].holds(steps) and all(plans[-1].passes(step) == 1 for step in steps.some):
            # Whatever recomputes more takes longer.
            break
    possible = [plan for plan in plans if plan.holds(steps)]
    if not possible:
        return max(plans, key=lambda plan: plan.in_parts)
    return min(possible, key=lambda plan: _cost(plan, layers, kept, steps))


def _cost(plan: PassPlan, layers: int, kept: Kept, steps: Steps) -> float:
    """What the steps take, in tokens that could be computed in that time."""
    added = SUM_COST if kept.gradients else 0
    passes = [plan.passes(step) for step in steps.some]
    computed = sum(steps.some) * (1 + _RECOMPUTING * plan.recomputed / layers)
    return computed + sum(PASS_COST * count + added * (count - 1) for count in passes)


def _plan(room: Room, kept: Kept, count: int, share: float, longest: int) -> PassPlan:
    """Passes as large as the memory allows.

    A step of one pass begins without gradients, and bf16 weights then need no float32 sums, which are twice as large.
    """
    most = max(MOST_TOKENS, longest)
    in_parts = min(room.tokens(kept.state + kept.gradients), most)
    at_the_end = room.tokens(kept.state)
    # Gradients take the place of activations, layer by layer. At the end, less than a quarter of these is left.
    at_once = min(room.tokens(kept.state - kept.gradients), 4 * at_the_end) if share < _MANY else at_the_end
    return PassPlan(min(at_once, most), in_parts, count)


_MANY = 0.75
"""Share of layers from which on the one layer that is computed again is more than a quarter of all activations."""
