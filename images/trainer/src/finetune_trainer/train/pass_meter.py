"""Measures on the GPU what passes through a model take, and tries the plan that follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from finetune_operator.api.training import Optimizer
from finetune_trainer.kernels.documents import LONGEST, STARTS
from finetune_trainer.kernels.fused_layers import recompute_first
from finetune_trainer.kernels.fused_model import causal_model
from finetune_trainer.train.device import Device
from finetune_trainer.train.pass_plan import Kept, PassPlan, Room, Steps, choose
from finetune_trainer.train.shared_gradients import exchange_bytes

_SHARE = 0.96
"""Of the free memory; the rest is for what the allocator loses between the pieces."""
_LOWERED = 0.9
"""What is left of a plan's tokens after a pass that found no memory."""
_PROBES = (1024, 2048)
_STATE_BYTES = {
    Optimizer.ADAMW: 8,
    Optimizer.ADAMW_8BIT: 2,
    Optimizer.PAGED_ADAMW_8BIT: 0,
    Optimizer.SGD: 0,
}
"""Bytes a trained weight of the optimizer's state; others are taken for the largest."""
_REMAINDER_BYTES = 2
"""Bytes a weight that is trained in bf16: what its float32 master has more (SplitAdamW)."""


class PassMeter:
    """What passes of one model take on this process's GPU, with the kernels in place."""

    def __init__(self, model: nn.Module, device: Device, dtype: torch.dtype | None) -> None:
        """``dtype`` is what autocast computes in, if it does."""
        self._model, self._dtype, self._index = model, dtype, device.index
        self._causal = causal_model(model)
        self._layers = len(self._causal.model.layers)
        self._measured: dict[int, Room] = {}

    def plan(self, counts: Sequence[int], kept: Kept, steps: Steps) -> PassPlan:
        """The best plan, tried; it cannot hold all of ``steps`` where nothing can.

        ``counts`` are the numbers of recomputing layers to choose from, if there is a choice.
        """
        with self._leaving_no_trace():
            chosen = choose(counts, self._layers, self._room if len(counts) > 1 else self._take, kept, steps)
            if len(counts) > 1:
                recompute_first(self._causal, chosen.recomputed)
            while chosen.holds(steps) and not self._runs(chosen, kept, steps):
                chosen = chosen.lowered(_LOWERED)
            return chosen

    def _room(self, count: int) -> Room:
        """Measured where all layers or none recompute, and in between taken for in between."""
        ends = (count,) if count in (0, self._layers) else (0, self._layers)
        for end in ends:
            if end not in self._measured:
                recompute_first(self._causal, end)
                self._measured[end] = self._take(end)
        return self._measured[ends[0]].towards(self._measured[ends[-1]], count / self._layers)

    def _take(self, _: int) -> Room:
        """What two short passes really took, their gradients included."""
        few, many = _PROBES
        self._release()
        at_rest = torch.cuda.memory_allocated(self._index)
        try:
            # Twice: all passes of a step but its first one begin with gradients in place.
            _, less, more = (self._peak_bytes(tokens) - at_rest for tokens in (few, few, many))
        except torch.OutOfMemoryError:
            return Room(0, 0, 1)
        finally:
            self._release()
        per_token = max(more - less, 1) / (many - few)
        return Room(torch.cuda.mem_get_info(self._index)[0] * _SHARE, less - per_token * few, per_token)

    def _runs(self, plan: PassPlan, kept: Kept, steps: Steps) -> bool:
        """Whether the largest passes find memory beside what will be kept; with several, float32 sums are part of that."""
        alone = min(steps.largest, plan.at_once)
        if not self._fits(int(kept.state), alone, steps.longest):
            return False
        if steps.largest <= plan.at_once or (plan.in_parts <= alone and not kept.gradients):
            return True
        return self._fits(int(kept.state + kept.gradients), plan.in_parts, steps.longest)

    def _fits(self, size: int, tokens: int, longest: int) -> bool:
        found = True
        try:
            self._pass_beside(size, tokens, longest)
        except torch.OutOfMemoryError:
            found = False
        # Not before: until then the error holds on to what the pass had made.
        self._release()
        return found

    def _pass_beside(self, size: int, tokens: int, longest: int) -> None:
        stand_in = torch.empty(size, dtype=torch.uint8, device=f"cuda:{self._index}")
        self._pass(tokens, longest)
        del stand_in

    def _peak_bytes(self, tokens: int) -> int:
        """Most bytes that were allocated during a forward and backward pass over one document of so many tokens."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._index)
        self._pass(tokens, tokens)
        return torch.cuda.max_memory_allocated(self._index)

    def _pass(self, tokens: int, longest: int) -> None:
        inputs = _inputs(self._causal.config.vocab_size, tokens, longest, f"cuda:{self._index}")
        with torch.autocast("cuda", self._dtype, enabled=self._dtype is not None):
            self._model(**inputs).loss.backward()

    def _release(self) -> None:
        self._model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()

    @contextmanager
    def _leaving_no_trace(self) -> Iterator[None]:
        state = torch.get_rng_state(), torch.cuda.get_rng_state(self._index)
        self._model.train()
        try:
            yield
        finally:
            self._release()
            torch.cuda.reset_peak_memory_stats(self._index)
            torch.set_rng_state(state[0])
            torch.cuda.set_rng_state(state[1], self._index)


def kept_bytes(model: nn.Module, optimizer: Optimizer, processes: int) -> Kept:
    """What comes beside the passes: the optimizer's state, and what several processes exchange gradients through."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    count, size = sum(weight.numel() for weight in trained), sum(weight.nbytes for weight in trained)
    state, several = _STATE_BYTES.get(optimizer, 8) * count, processes > 1
    if trained[0].dtype is not torch.bfloat16:
        # DistributedDataParallel's buckets are as large as all gradients.
        return Kept(state + several * size)
    # Each of several processes keeps its part of the state, and of the gradients' sums in float32.
    parts = state + (_REMAINDER_BYTES + several * torch.float32.itemsize) * count
    return Kept(parts / processes + several * exchange_bytes(), gradients=size)


def _inputs(vocabulary: int, tokens: int, longest: int, device: str) -> dict[str, Any]:
    """``tokens`` in documents of ``longest``, all of them learnt: what takes most."""
    places = torch.arange(tokens, device=device)
    ids = (places % vocabulary).unsqueeze(0)
    starts = [*range(0, tokens, longest), tokens]
    return {
        "input_ids": ids,
        "position_ids": (places % longest).unsqueeze(0),
        "learnt": places[:-1],
        "targets": ids[0, 1:],
        STARTS: torch.tensor(starts, dtype=torch.int32, device=device),
        LONGEST: longest,
    }
