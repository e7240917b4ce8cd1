"""Where a raw DeepSpeed configuration says something else than the job's own fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.training import Precision

AUTO = "auto"


def deepspeed_conflicts(spec: FineTuneJobSpec) -> Iterator[str]:
    """One sentence a conflict, with both values; nothing where the two agree or the raw one is absent or "auto"."""
    raw = spec.deepspeed.raw_config if spec.deepspeed is not None else None
    if raw is None:
        return
    for path, field, value in _said_twice(spec):
        found = _at(raw, path)
        if found is not None and found != AUTO and not _agree(found, value):
            yield (
                f"spec.deepspeed.config.{path}: found {found!r}, and {field} says {value!r}; remove it or write "
                f'"{AUTO}", or change the field'
            )
    for path, field, said in (
        ("optimizer", "spec.training.optimizer", spec.training.optimizer.value),
        ("scheduler", "spec.training.scheduler", spec.training.scheduler.value),
    ):
        if path in raw:
            kind = raw[path].get("type") if isinstance(raw[path], dict) else raw[path]
            yield f"spec.deepspeed.config.{path}: found {kind!r}, and {field} says {said!r}: it is set twice; remove it here"
    for path in ("zero_optimization", "fp16", "bf16"):
        if path in raw and not isinstance(raw[path], dict):
            yield f"spec.deepspeed.config.{path}: found {raw[path]!r}, expected an object; write {{...}}, or remove it"
    if "amp" in raw:
        yield "spec.deepspeed.config.amp: found NVIDIA apex's mixed precision, expected none; use spec.training.precision"


def _said_twice(spec: FineTuneJobSpec) -> Iterator[tuple[str, str, Any]]:
    """Path in the raw configuration, the job's field that says the same, and what it says."""
    training, deepspeed = spec.training, spec.deepspeed
    processes = spec.resources.nodes * max(1, spec.resources.gpus_per_node)
    micro, accumulated = training.per_device_batch_size, training.gradient_accumulation_steps
    product = (
        f"spec.training (perDeviceBatchSize {micro} x gradientAccumulationSteps {accumulated} x {processes} processes)"
    )
    yield "train_micro_batch_size_per_gpu", "spec.training.perDeviceBatchSize", micro
    yield "gradient_accumulation_steps", "spec.training.gradientAccumulationSteps", accumulated
    yield "train_batch_size", product, micro * accumulated * processes
    yield "gradient_clipping", "spec.training.maxGradNorm", float(training.max_grad_norm)
    half = (Precision.BF16, Precision.FP8_BASE)
    yield "bf16.enabled", f"spec.training.precision {training.precision.value}", training.precision in half
    yield (
        "fp16.enabled",
        f"spec.training.precision {training.precision.value}",
        training.precision is Precision.FP16,
    )
    if deepspeed is not None:
        yield "zero_optimization.stage", "spec.deepspeed.stage", deepspeed.stage
        for path, field, place in (
            (
                "zero_optimization.offload_optimizer.device",
                "spec.deepspeed.offloadOptimizer",
                deepspeed.offload_optimizer,
            ),
            (
                "zero_optimization.offload_param.device",
                "spec.deepspeed.offloadParameters",
                deepspeed.offload_parameters,
            ),
        ):
            yield path, field, place.value.lower()
        if deepspeed.stage == 3:
            # Without it, a checkpoint holds no weights that anything but DeepSpeed can read.
            yield "zero_optimization.stage3_gather_16bit_weights_on_model_save", "the trainer", True


def _at(raw: Mapping[str, Any], path: str) -> Any:
    value: Any = raw
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _agree(found: Any, value: Any) -> bool:
    if isinstance(value, bool) or isinstance(found, bool):
        return found is value
    return bool(found == value)
