"""One optimizer step acted out on fake tensors: the model's, the loss's and autograd's own code, with no numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate.utils.operations import convert_to_fp32  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.training import Precision
from finetune_trainer.estimate.attention import attend_without_mask
from finetune_trainer.estimate.fused import documents, fuse_acted_out
from finetune_trainer.estimate.optimizer import state_tensors, step_tensors
from finetune_trainer.estimate.parts import CONSTANTS, Part
from finetune_trainer.estimate.skeleton import act_out, compute_type, decoder_layers
from finetune_trainer.estimate.tracker import MemoryTracker


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes through the model at once."""

    sequences: int
    length: int
    """Tokens of each, padding counted."""
    masked: bool = False
    """Whether attention gets a mask of length x length, because of padding or of conversations that share a sequence."""
    fused: bool = False
    """Whether it is one sequence of documents, through the fused kernels."""
    several: bool = False
    """Whether a step has more passes than this one, with fused kernels."""
    evaluated: int = 0
    """Sequences that an evaluation takes at once; 0 for none."""


def play_step(model: nn.Module, spec: FineTuneJobSpec, batch: Batch) -> MemoryTracker:
    """Act out a step that is not the first, so that the optimizer's state is there, and return what was tracked."""
    mode = FakeTensorMode()
    act_out(model, mode)
    tracker = MemoryTracker(_vocabulary(model))
    with mode:
        _count_model(model, tracker)
        if batch.fused:
            _fuse(model, spec, tracker)
        elif not batch.masked:
            attend_without_mask(model)
        with tracker:
            _play(model, spec, batch, tracker)
    return tracker


def _fuse(model: nn.Module, spec: FineTuneJobSpec, tracker: MemoryTracker) -> None:
    """The kernels join weights of several layers in memory of their own, which no parameter need look at."""
    precision = spec.training.precision
    dtype = None if precision is Precision.FP32 else compute_type(spec)
    with tracker, tracker.counting_as(Part.WEIGHTS):
        fuse_acted_out(model, dtype, float8=precision is Precision.FP8_BASE)


def _play(model: nn.Module, spec: FineTuneJobSpec, batch: Batch, tracker: MemoryTracker) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sharded = spec.deepspeed is not None
    tracker.begin("forward")
    _last_layer(model).register_forward_hook(partial(_tell_of_gradient, tracker))
    with tracker.counting_as(Part.OPTIMIZER):
        state = [] if sharded else list(state_tensors(spec.training.optimizer, trained, _embeddings(model)))

    sums = _gradients(trained, spec, batch, tracker)
    loss = _loss(model, spec, batch)
    tracker.begin("loss backward")
    loss.backward()  # type: ignore[no-untyped-call]
    del loss
    tracker.begin("optimizer")
    with tracker.counting_as(Part.OPTIMIZER):
        taken = [] if sharded else list(step_tensors(spec.training.optimizer, trained))
    del taken
    _evaluate(model, spec, batch, tracker)
    del state, sums


def _gradients(
    trained: list[nn.Parameter], spec: FineTuneJobSpec, batch: Batch, tracker: MemoryTracker
) -> list[Tensor]:
    """Have gradients counted. Returns the float32 sums that those of bf16 weights are added to where passes are several."""
    split = [parameter for parameter in trained if parameter.dtype is torch.bfloat16 and spec.deepspeed is None]
    sums_up = bool(split) and batch.several

    def count(done: Tensor) -> None:
        tracker.assign(_gradient(done), Part.GRADIENTS)
        if sums_up:
            done.grad = None

    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(count)  # type: ignore[no-untyped-call]
    with tracker.counting_as(Part.GRADIENTS):
        if sums_up:
            return [torch.empty_like(parameter, dtype=torch.float32) for parameter in split]
        if spec.training.gradient_accumulation_steps > 1 and not split:
            # Those of the micro-batches before are there from the beginning.
            for parameter in trained:
                parameter.grad = torch.empty_like(parameter)
    return []


def _evaluate(model: nn.Module, spec: FineTuneJobSpec, batch: Batch, tracker: MemoryTracker) -> None:
    # Nothing is kept for a backward pass: it takes more than training only where it takes more at once.
    if batch.evaluated <= batch.sequences or batch.fused:
        return
    tracker.begin("evaluation")
    for parameter in model.parameters():
        parameter.grad = None
    with torch.no_grad():
        _loss(model.eval(), spec, replace(batch, sequences=batch.evaluated))


def _tell_of_gradient(tracker: MemoryTracker, layer: nn.Module, inputs: Any, output: Any) -> None:
    made: Tensor = output[0] if isinstance(output, tuple) else output
    if made.requires_grad:
        made.register_hook(lambda _: tracker.begin("layers backward"))  # type: ignore[no-untyped-call]


def _last_layer(model: Any) -> nn.Module:
    return decoder_layers(model)[-1]


def _loss(model: nn.Module, spec: FineTuneJobSpec, batch: Batch) -> Tensor:
    """As the Trainer and accelerate compute it; the logits are gone with the model's output when it returns."""
    inputs = documents(batch.length) if batch.fused else _padded(batch)
    # The copies that autocast makes of trained weights live until it ends.
    with _autocast(spec):
        outputs: Any = model(**inputs, num_items_in_batch=torch.ones(()))
    if spec.deepspeed is None and spec.training.precision is not Precision.FP32:
        outputs = convert_to_fp32(outputs)
    loss: Tensor = outputs["loss"]
    return loss


def _padded(batch: Batch) -> dict[str, Any]:
    shape = (batch.sequences, batch.length)
    mask = torch.ones(batch.sequences, 1, batch.length, batch.length, dtype=torch.bool)
    return {
        "input_ids": torch.zeros(shape, dtype=torch.long),
        # Not asked for where none is needed; transformers would make one, as it cannot look into fake tensors.
        "attention_mask": mask if batch.masked else None,
        "labels": torch.zeros(shape, dtype=torch.long),
        "use_cache": False,
    }


@contextmanager
def _autocast(spec: FineTuneJobSpec) -> Iterator[None]:
    if spec.deepspeed is not None or spec.training.precision is Precision.FP32:
        yield
        return
    dtype = compute_type(spec)
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    # The layers compute on the CPU here, and some ask whether autocast is on for the GPU.
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        with torch.autocast("cpu", dtype=dtype):
            yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def _count_model(model: nn.Module, tracker: MemoryTracker) -> None:
    for name, buffer in model.named_buffers():
        tracker.assign(buffer, Part.QUANTIZATION if name.endswith(CONSTANTS) else Part.WEIGHTS)
    adapts = hasattr(model, "peft_config")
    for parameter in model.parameters():
        tracker.assign(parameter.data, Part.ADAPTERS if adapts and parameter.requires_grad else Part.WEIGHTS)


def _embeddings(model: nn.Module) -> frozenset[int]:
    return frozenset(id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding))


def _vocabulary(model: Any) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None  # noqa: S101  # the hook runs right after it was made
    return parameter.grad
