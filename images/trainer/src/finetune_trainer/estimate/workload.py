"""How large the passes through the model are."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.tokenization import Packing
from finetune_trainer.estimate.step import Batch
from finetune_trainer.train.data import MULTIPLE

_WORTHWHILE_TOKENS = 4096
"""Passes with fewer tokens leave a GPU's matrix units waiting; recomputing activations is faster then (docs/memory.md)."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What the rows of a job ask for."""

    longest: int
    """Tokens of the longest sequence; a packed one counts whole."""
    padded: bool = False
    """Whether a batch may hold sequences of different lengths."""
    step: int | None = None
    """Most tokens that an optimizer step may have; None where only the longest sequence is known."""


def workload_of(spec: FineTuneJobSpec, longest: int, step: int | None = None) -> Workload:
    """What rows ask for of which the longest sequence is known, and perhaps the largest step."""
    is_alone = spec.training.per_device_batch_size == 1
    return Workload(longest, padded=not is_alone, step=step)


def padded_batch(spec: FineTuneJobSpec, workload: Workload) -> Batch:
    """A micro-batch of the longest sequences: the worst that padding can make."""
    sequences = spec.training.per_device_batch_size
    length = -(-workload.longest // MULTIPLE) * MULTIPLE
    # A lone sequence that needs no padding is causal throughout, and attention then needs no mask.
    masked = spec.tokenization.packing is Packing.SEGMENTED or length != workload.longest or workload.padded
    return Batch(sequences, length, masked, evaluated=_evaluated(spec))


def worthwhile_tokens(spec: FineTuneJobSpec, workload: Workload) -> int:
    """Tokens of a fused pass that is worth its while: one takes as many rows of a step as memory has room for."""
    return max(workload.longest, min(_WORTHWHILE_TOKENS, step_tokens(spec, workload)))


def fused_batch(spec: FineTuneJobSpec, workload: Workload, tokens: int) -> Batch:
    """A fused pass of so many tokens."""
    return Batch(1, tokens, fused=True, several=tokens < step_tokens(spec, workload))


def step_tokens(spec: FineTuneJobSpec, workload: Workload) -> int:
    """Most tokens that an optimizer step may have."""
    return workload.longest * spec.training.sequences_per_step if workload.step is None else workload.step


def _evaluated(spec: FineTuneJobSpec) -> int:
    evaluation = spec.evaluation
    return 0 if evaluation is None else evaluation.per_device_batch_size
