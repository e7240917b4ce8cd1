"""Whether a training takes the fused kernels, and how many tokens a pass through the model then has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.training import Optimizer, Precision, Switch
from finetune_trainer.kernels.attention import LONGEST, STARTS
from finetune_trainer.kernels.fused_model import causal_model, fuse, unsuited
from finetune_trainer.train.device import Device

MOST_TOKENS = 16_384
"""More tokens in a pass make it no faster: the matrix units are busy from about 8,000."""
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


@dataclass(frozen=True, slots=True)
class FusedPlan:
    """How a model with fused kernels is fed."""

    tokens_per_pass: int


def plan_fused(model: nn.Module, spec: FineTuneJobSpec, device: Device, longest: int) -> FusedPlan | None:
    """Put the kernels into the model if they suit the job, and measure what a pass may hold; None where they do not.

    ``longest`` is the longest sequence's number of tokens. Raises StageFailure: INVALID_SPEC where fusedKernels is
    Enabled and cannot be, OUT_OF_MEMORY where not even the longest sequence fits.
    """
    switch = spec.training.fused_kernels
    if switch is Switch.DISABLED or (switch is Switch.AUTO and not device.is_gpu):
        return None
    reason = unsuited_job(spec, device) or unsuited(model, longest)
    if reason is None:
        return _fused(model, spec, device, longest)
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
    if spec.deepspeed is not None:
        return "DeepSpeed runs the model itself"
    if float(training.neftune_noise_alpha or "0"):
        return "the noise of NEFTune depends on how rows are padded"
    if float(training.label_smoothing or "0"):
        return "label smoothing needs the logits of all tokens"
    if device.is_gpu and device.autocast is Precision.FP32:
        return "FlashAttention computes in 16 bits, and precision is FP32"
    return None


def _fused(model: nn.Module, spec: FineTuneJobSpec, device: Device, longest: int) -> FusedPlan:
    dtype = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}.get(device.autocast)
    if device.is_gpu and next(model.parameters()).device.type == "cpu":
        model.to(f"cuda:{device.index}")
    fuse(model, dtype)
    tokens = _CPU_TOKENS
    if device.is_gpu:
        tokens = _measured(model, spec, device, dtype)
        if tokens < longest:
            raise StageFailure(
                ExitCode.OUT_OF_MEMORY,
                f"the longest sequence has {longest} tokens; beside the model, {torch.cuda.get_device_name(device.index)} "
                f"has memory for {max(tokens, 0)} at a time. Set training.gradientCheckpointing: Enabled, lower "
                "tokenization.cutoffLen, use method QLoRA, or GPUs with more memory.",
            )
    print(f"train: fused kernels, up to {max(tokens, longest)} tokens a pass", flush=True)
    return FusedPlan(max(min(tokens, MOST_TOKENS), longest))


def _measured(model: nn.Module, spec: FineTuneJobSpec, device: Device, dtype: torch.dtype | None) -> int:
    """Tokens that fit, from the memory that two short passes really took."""
    state = torch.get_rng_state(), torch.cuda.get_rng_state(device.index)
    model.train()
    few, many = _PROBES
    try:
        at_rest = torch.cuda.memory_allocated(device.index)
        # Twice: all passes of a step but its first one begin with gradients in place.
        _, less, more = (_peak_bytes(model, device, dtype, tokens) - at_rest for tokens in (few, few, many))
    except torch.OutOfMemoryError:
        return 0
    finally:
        model.zero_grad(set_to_none=True)
        torch.set_rng_state(state[0])
        torch.cuda.set_rng_state(state[1], device.index)
        torch.cuda.empty_cache()
    per_token = max(more - less, 1) / (many - few)
    free = torch.cuda.mem_get_info(device.index)[0] * _SHARE - _kept_bytes(model, spec.training.optimizer)
    return int((free - (less - per_token * few)) / per_token)


def _kept_bytes(model: nn.Module, optimizer: Optimizer) -> int:
    """What comes beside the passes: the optimizer's state, and the buckets that several GPUs exchange gradients through."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    shared = torch.distributed.is_available() and torch.distributed.is_initialized()
    return trained * (_STATE_BYTES.get(optimizer, 8) + (4 if shared else 0))


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
