"""What to change about a job so that it fits, cheapest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from finetune_operator.api.method import DeepSpeed, Method, Offload
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.training import Optimizer, Switch

_GPUS = (2, 4, 8)
"""GPUs that nodes have."""


@dataclass(frozen=True, slots=True)
class Change:
    """Fields to set, and the job with them."""

    words: tuple[str, ...]
    spec: FineTuneJobSpec

    def __str__(self) -> str:
        return ", and ".join(self.words)


def first_that_fits(spec: FineTuneJobSpec, fits: Callable[[FineTuneJobSpec], bool], *, padded: bool) -> Change | None:
    """The cheapest change after which the job fits; None where none of those known helps."""
    return next((change for change in changes(spec, padded=padded) if fits(change.spec)), None)


def changes(spec: FineTuneJobSpec, *, padded: bool) -> Iterator[Change]:
    """First those that leave the result as it is, each built on the one before, then others on top of all of these.

    ``padded`` tells that sequences are taken perDeviceBatchSize at a time; the fused kernels choose by themselves.
    """
    kept = Change((), spec)
    for kept in _harmless(spec, padded=padded):
        yield kept
    for words, changed in _costly(kept.spec):
        yield Change((*kept.words, words), changed)


def batches(spec: FineTuneJobSpec) -> list[FineTuneJobSpec]:
    """The job with all numbers of sequences at a time that make the same optimizer step, largest first."""
    step = spec.training.sequences_per_step
    return [
        _training(spec, per_device_batch_size=sequences, gradient_accumulation_steps=step // sequences)
        for sequences in range(step, 0, -1)
        if step % sequences == 0
    ]


def batch_words(spec: FineTuneJobSpec) -> str:
    """The fields that make an optimizer step."""
    training = spec.training
    return (
        f"training.perDeviceBatchSize: {training.per_device_batch_size} with gradientAccumulationSteps: "
        f"{training.gradient_accumulation_steps}"
    )


def _harmless(spec: FineTuneJobSpec, *, padded: bool) -> Iterator[Change]:
    words: tuple[str, ...] = ()
    if spec.training.gradient_checkpointing is Switch.DISABLED:
        spec = _training(spec, gradient_checkpointing=Switch.AUTO)
        words = ("training.gradientCheckpointing: Auto",)
        yield Change(words, spec)
    for smaller in batches(spec) if padded else []:
        if smaller.training.per_device_batch_size < spec.training.per_device_batch_size:
            yield Change((*words, batch_words(smaller)), smaller)


def _costly(spec: FineTuneJobSpec) -> Iterator[tuple[str, FineTuneJobSpec]]:
    gpus = spec.resources.gpus_per_node
    if spec.method is Method.FULL and spec.training.optimizer is Optimizer.ADAMW and spec.deepspeed is None:
        yield "training.optimizer: AdamW8bit", _training(spec, optimizer=Optimizer.ADAMW_8BIT)
    if gpus * spec.resources.nodes > 1:
        yield from _sharded(spec, gpus)
    if spec.method is Method.LORA:
        yield "method: QLoRA", _with(spec, method=Method.QLORA)
    for more in _GPUS:
        if more > gpus:
            yield from _sharded(spec, more)
    yield from _offloaded(spec)
    if spec.method is Method.FULL:
        yield "method: LoRA", _with(spec, method=Method.LORA)
        yield "method: QLoRA", _with(spec, method=Method.QLORA)


def _sharded(spec: FineTuneJobSpec, gpus: int) -> Iterator[tuple[str, FineTuneJobSpec]]:
    """ZeRO's stage 3, which takes no 8-bit weights."""
    quantization = spec.effective_quantization
    if quantization is not None and quantization.bits == 8:
        return
    words = "deepspeed.stage: 3" if gpus == spec.resources.gpus_per_node else f"deepspeed.stage: 3 on {gpus} GPUs"
    resources = spec.resources.model_copy(update={"gpus_per_node": gpus})
    sharded = (spec.deepspeed or DeepSpeed()).model_copy(update={"stage": 3})
    if sharded != spec.deepspeed or resources != spec.resources:
        yield words, _with(spec, deepspeed=sharded, resources=resources)


def _offloaded(spec: FineTuneJobSpec) -> Iterator[tuple[str, FineTuneJobSpec]]:
    if spec.effective_quantization is not None:
        return
    everything = DeepSpeed(stage=3, offload_optimizer=Offload.CPU, offload_parameters=Offload.CPU)
    yield (
        "deepspeed.stage: 3 with offloadOptimizer: CPU and offloadParameters: CPU (slow; needs as much of the node's memory)",
        _with(spec, deepspeed=everything),
    )


def _training(spec: FineTuneJobSpec, **update: Any) -> FineTuneJobSpec:
    return _with(spec, training=spec.training.model_copy(update=update))


def _with(spec: FineTuneJobSpec, **update: Any) -> FineTuneJobSpec:
    return spec.model_copy(update=update)
