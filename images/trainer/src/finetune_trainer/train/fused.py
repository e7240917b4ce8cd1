"""Whether a training takes the fused kernels, and how many tokens a pass through the model then has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.training import Precision, Switch
from finetune_trainer.kernels.fused_model import causal_model, fuse, unsuited
from finetune_trainer.train.device import Device
from finetune_trainer.train.float8 import Rounding, round_base
from finetune_trainer.train.pass_meter import PassMeter, kept_bytes
from finetune_trainer.train.pass_plan import PassPlan, Steps
from finetune_trainer.train.rank import process_count

Sample = Callable[[], Sequence[dict[str, Any]]]
"""Gives inputs of some passes over the rows that are trained on."""
PLAIN_ADAPTERS = "no dropout, DoRA or modulesToSave"
_CPU_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class FusedPlan:
    """How a model with fused kernels is fed."""

    passes: PassPlan
    rounding: Rounding | None = None
    """What was found where the base was to be rounded."""


def plan_fused(
    model: nn.Module, spec: FineTuneJobSpec, device: Device, steps: Steps, sample: Sample
) -> FusedPlan | None:
    """Put the kernels into the model if they suit the job, and measure what a pass may hold; None where they do not.

    ``sample`` gives passes of the job's rows. Raises StageFailure: INVALID_SPEC where fusedKernels is Enabled or precision
    FP8Base and cannot be, OUT_OF_MEMORY where not even the longest sequence fits.
    """
    switch = spec.training.fused_kernels
    if switch is Switch.AUTO and not device.is_gpu:
        return None
    reason = unsuited_job(spec, device) or unsuited(model, steps.longest)
    if reason is None:
        return _fused(model, spec, device, steps, sample)
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


def _fused(model: nn.Module, spec: FineTuneJobSpec, device: Device, steps: Steps, sample: Sample) -> FusedPlan:
    dtype = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}.get(device.autocast)
    if device.is_gpu and next(model.parameters()).device.type == "cpu":
        model.to(f"cuda:{device.index}")
    layers = causal_model(model).model.layers
    asked = sum(bool(layer.gradient_checkpointing) for layer in layers)
    joined = fuse(model, dtype)
    rounding = None
    if spec.training.precision is Precision.FP8_BASE:
        if not joined:
            raise _no_float8(f"what is trained is not plain adapters alone ({PLAIN_ADAPTERS})")
        rounding = round_base(model, joined, sample())
    if not device.is_gpu:
        return FusedPlan(PassPlan(_CPU_TOKENS, _CPU_TOKENS, asked), rounding)
    chooses = bool(joined) and spec.training.gradient_checkpointing is Switch.AUTO
    counts = range(len(layers) + 1) if chooses else [asked]
    kept = kept_bytes(model, spec.training.optimizer, process_count())
    plan = PassMeter(model, device, dtype).plan(counts, kept, steps)
    if not plan.holds(steps):
        raise _too_long(plan.in_parts, steps.longest, device)
    recomputed = (
        f"; as measured, {plan.recomputed} of {len(layers)} layers recompute their activations" if chooses else ""
    )
    print(f"train: fused kernels, up to {plan.at_once} tokens a pass{recomputed}", flush=True)
    return FusedPlan(plan, rounding)


def _too_long(tokens: int, longest: int, device: Device) -> StageFailure:
    return StageFailure(
        ExitCode.OUT_OF_MEMORY,
        f"the longest sequence has {longest} tokens; beside the model, {torch.cuda.get_device_name(device.index)} "
        f"has memory for {max(tokens, 0)} at a time. Set training.gradientCheckpointing: Enabled, lower "
        "tokenization.cutoffLen, use method QLoRA, or GPUs with more memory.",
    )
