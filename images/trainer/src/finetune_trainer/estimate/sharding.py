"""What of the training state each GPU holds under DeepSpeed ZeRO (arXiv 1910.02054, section 3; defaults of DeepSpeed's documentation)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune_operator.api.method import DeepSpeed, Offload
from finetune_operator.api.training import Optimizer
from finetune_trainer.estimate.parts import Part

_BUCKET = 500_000_000
"""Numbers that are exchanged at once (reduce_bucket_size, allgather_bucket_size)."""
_LIVE = 1_000_000_000
"""Weights that stage 3 keeps whole at a time (stage3_max_live_parameters)."""
_MASTER = 8
"""Bytes a trained weight: the float32 copy that is updated, and its gradient."""
_STATE = {Optimizer.ADAMW: 8, Optimizer.ADAMW_8BIT: 2}


@dataclass(frozen=True, slots=True)
class Trained:
    """The weights that are trained."""

    count: int
    size: int
    """In bytes, as they are computed with."""


def sharded_parts(
    weights: float, trained: Trained, deepspeed: DeepSpeed, optimizer: Optimizer, devices: int
) -> dict[Part, float]:
    """Bytes of the state on each of ``devices`` GPUs, of a model of ``weights`` bytes."""
    stage = deepspeed.stage
    offloads = deepspeed.offload_optimizer is Offload.CPU
    state = trained.count * (_MASTER + _STATE.get(optimizer, 0))
    held = _held(weights, deepspeed, devices)
    return {
        Part.WEIGHTS: held,
        Part.GRADIENTS: 0 if offloads and stage >= 2 else trained.size / (devices if stage >= 2 else 1),
        Part.OPTIMIZER: 0 if offloads else state / (devices if stage >= 1 else 1),
        Part.COMMUNICATION: _buckets(trained, deepspeed, devices, gathered=weights - held),
    }


def _held(weights: float, deepspeed: DeepSpeed, devices: int) -> float:
    if deepspeed.stage < 3:
        return weights
    return 0 if deepspeed.offload_parameters is Offload.CPU else weights / devices


def _buckets(trained: Trained, deepspeed: DeepSpeed, devices: int, *, gathered: float) -> float:
    per_number = trained.size / max(1, trained.count)
    if deepspeed.stage == 3:
        live = min(2 * _number(deepspeed, "stage3_max_live_parameters", _LIVE), gathered)
    else:
        live = min(_number(deepspeed, "allgather_bucket_size", _BUCKET), trained.count) * per_number
    # A bucket is sent while the next is filled (overlap_comm).
    reduced = 2 * min(_number(deepspeed, "reduce_bucket_size", _BUCKET), trained.count) * per_number
    return live + (reduced if devices > 1 else 0) if devices > 1 or deepspeed.stage == 3 else 0


def _number(deepspeed: DeepSpeed, key: str, default: int) -> int:
    zero: Any = (deepspeed.raw_config or {}).get("zero_optimization") or {}
    value = zero.get(key)
    return int(value) if isinstance(value, int | float) else default
