"""Whether a training takes the fused kernels, and how many tokens a pass through the model then has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.training import Optimizer, Precision, Switch
from finetune_trainer.kernels.documents import LONGEST, STARTS
from finetune_trainer.kernels.fused_model import causal_model, fuse, unsuited
from finetune_trainer.train.device import Device
from finetune_trainer.train.float8 import round_base

Sample = Callable[[], Sequence[dict[str, Any]]]
"""Gives inputs of some passes over the rows that are trained on."""
PLAIN_ADAPTERS = "no dropout, DoRA or modulesToSave"
MOST_TOKENS = 32_768
"""More tokens in a pass make it no faster: what a pass costs however small it is, is below a hundredth of it then."""
_CPU_TOKENS = 4096
_SHARE = 0.92
"""Of the free memory; the rest is for what the allocator loses between the pieces."""
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


@dataclass(frozen=True, slots=True)
class FusedPlan:
    """How a model with fused kernels is fed."""

    tokens_per_pass: int


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that are free, and those that gradients and a pass take: so many, and so many more for each token."""

    free: float
    fixed: float
    per_token: float

    def tokens(self, kept: int) -> int:
        """Tokens of the largest pass beside ``kept`` bytes; below 1 where there is none."""
        return int((self.free - kept - self.fixed) / self.per_token)


def plan_fused(
    model: nn.Module, spec: FineTuneJobSpec, device: Device, longest: int, step: int, sample: Sample
) -> FusedPlan | None:
    """Put the kernels into the model if they suit the job, and measure what a pass may hold; None where they do not.

    ``longest`` is the longest sequence's number of tokens, ``step`` the largest optimizer step's, ``sample`` gives passes
    of the job's rows. Raises StageFailure: INVALID_SPEC where fusedKernels is Enabled or precision FP8Base and cannot be,
    OUT_OF_MEMORY where not even the longest sequence fits.
    """
    switch = spec.training.fused_kernels
    if switch is Switch.AUTO and not device.is_gpu:
        return None
    reason = unsuited_job(spec, device) or unsuited(model, longest)
    if reason is None:
        return _fused(model, spec, device, longest, step, sample)
    if spec.training.precision is Precision.FP8_BASE and device.is_gpu:
        raise _no_float8(reason)
    if switch is Switch.DISABLED:
        return None
    if switch is Switch.ENABLED:
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            f"training.fusedKernels: Enabled, but {reason}. Set Auto, which then trains without them.",
        )
    print(f"train: without fused kernels: {reason}", flush=True)
    return None


def unsuited_job(spec: FineTuneJobSpec, device: Device) -> str | None:
    """Why the kernels do not suit what a job asks for; None where they do."""
    training = spec.training
    if training.fused_kernels is Switch.DISABLED:
        return "fusedKernels is Disabled"
    if spec.deepspeed is not None:
        return "DeepSpeed runs the model itself"
    if float(training.neftune_noise_alpha or "0"):
        return "the noise of NEFTune depends on how rows are padded"
    if float(training.label_smoothing or "0"):
        return "label smoothing needs the logits of all tokens"
    if device.is_gpu and device.autocast is Precision.FP32:
        return "FlashAttention computes in 16 bits, and precision is FP32"
    return None


def _no_float8(reason: str) -> StageFailure:
    return StageFailure(
        ExitCode.INVALID_SPEC, f"training.precision: FP8Base is for the fused kernels, but {reason}. Set BF16."
    )


def _fused(
    model: nn.Module, spec: FineTuneJobSpec, device: Device, longest: int, step: int, sample: Sample
) -> FusedPlan:
    dtype = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}.get(device.autocast)
    if device.is_gpu and next(model.parameters()).device.type == "cpu":
        model.to(f"cuda:{device.index}")
    recomputes = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    joined = fuse(model, dtype)
    if spec.training.precision is Precision.FP8_BASE:
        if not joined:
            raise _no_float8(f"what is trained is not plain adapters alone ({PLAIN_ADAPTERS})")
        round_base(model, joined, sample())
    tokens = _CPU_TOKENS
    if device.is_gpu:
        room = _measured(model, device, dtype)
        tokens = tokens_that_fit(room, model, spec.training.optimizer, step, recomputes=recomputes)
        if tokens < longest:
            raise StageFailure(
                ExitCode.OUT_OF_MEMORY,
                f"the longest sequence has {longest} tokens; beside the model, {torch.cuda.get_device_name(device.index)} "
                f"has memory for {max(tokens, 0)} at a time. Set training.gradientCheckpointing: Enabled, lower "
                "tokenization.cutoffLen, use method QLoRA, or GPUs with more memory.",
            )
    print(f"train: fused kernels, up to {max(tokens, longest)} tokens a pass", flush=True)
    return FusedPlan(max(min(tokens, MOST_TOKENS), longest))


def tokens_that_fit(room: Room, model: nn.Module, optimizer: Optimizer, step: int, *, recomputes: bool) -> int:
    """Tokens of a pass that have room beside what the optimizer keeps; ``step`` is the largest optimizer step's tokens.

    ``room`` is beside gradients. Steps that are one pass each begin without, and bf16 weights then need no float32 sums.
    """
    kept = _kept_bytes(model, optimizer)
    gradients = sum(weight.nbytes for weight in _trained(model) if weight.dtype is torch.bfloat16)
    tokens = room.tokens(kept)
    if not recomputes:
        # Gradients take the place of activations, layer by layer. At the end, less than a quarter of these is left.
        tokens = min(room.tokens(kept - gradients), 4 * tokens)
    if step <= min(tokens, MOST_TOKENS):
        return tokens
    # The sums are twice as large as the gradients.
    return room.tokens(kept + gradients)


def _measured(model: nn.Module, device: Device, dtype: torch.dtype | None) -> Room:
    """What two short passes really took, their gradients included."""
    state = torch.get_rng_state(), torch.cuda.get_rng_state(device.index)
    model.train()
    few, many = _PROBES
    try:
        at_rest = torch.cuda.memory_allocated(device.index)
        # Twice: all passes of a step but its first one begin with gradients in place.
        _, less, more = (_peak_bytes(model, device, dtype, tokens) - at_rest for tokens in (few, few, many))
    except torch.OutOfMemoryError:
        return Room(0, 0, 1)
    finally:
        model.zero_grad(set_to_none=True)
        torch.set_rng_state(state[0])
        torch.cuda.set_rng_state(state[1], device.index)
        torch.cuda.empty_cache()
    per_token = max(more - less, 1) / (many - few)
    return Room(torch.cuda.mem_get_info(device.index)[0] * _SHARE, less - per_token * few, per_token)


def _kept_bytes(model: nn.Module, optimizer: Optimizer) -> int:
    """What comes beside the passes: the optimizer's state, and the buckets that several GPUs exchange gradients through."""
    shared = torch.distributed.is_available() and torch.distributed.is_initialized()
    each = _STATE_BYTES.get(optimizer, 8) + (4 if shared else 0)
    return sum(
        weight.numel() * (each + (_REMAINDER_BYTES if weight.dtype is torch.bfloat16 else 0))
        for weight in _trained(model)
    )


def _trained(model: nn.Module) -> Iterator[nn.Parameter]:
    return (parameter for parameter in model.parameters() if parameter.requires_grad)


def _peak_bytes(model: nn.Module, device: Device, dtype: torch.dtype | None, tokens: int) -> int:
    """Most bytes that were allocated during a forward and backward pass over one document of so many tokens."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device.index)
    with torch.autocast("cuda", dtype, enabled=dtype is not None):
        model(**_inputs(causal_model(model).config.vocab_size, tokens, f"cuda:{device.index}")).loss.backward()
    return torch.cuda.max_memory_allocated(device.index)


def _inputs(vocabulary: int, tokens: int, device: str) -> dict[str, Any]:
    places = torch.arange(tokens, device=device)
    ids = (places % vocabulary).unsqueeze(0)
    return {
        "input_ids": ids,
        "position_ids": places.unsqueeze(0),
        "learnt": places[:-1],
        "targets": ids[0, 1:],
        STARTS: torch.tensor([0, tokens], dtype=torch.int32, device=device),
        LONGEST: tokens,
    }
