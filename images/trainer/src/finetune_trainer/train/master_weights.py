"""Whether the weights of a Full training stay bf16, with what their float32 masters have more in the optimizer."""

from __future__ import annotations

import torch
from torch import nn

from finetune_operator.api.method import Method
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.training import Optimizer, Precision, Switch
from finetune_trainer.kernels.fused_model import unsuited
from finetune_trainer.train.device import Device
from finetune_trainer.train.fused import unsuited_job


def splits_masters(model: nn.Module, spec: FineTuneJobSpec, device: Device, longest: int) -> bool:
    """Whether a model, as it was loaded, is trained that way; ``longest`` is the longest sequence's number of tokens.

    With the fused kernels alone: without them nothing is gained, as autocast is made for float32 weights.
    """
    if spec.training.fused_kernels is Switch.AUTO and not device.is_gpu:
        return False
    stored = {parameter.dtype for parameter in model.parameters()}
    return (
        stored == {torch.bfloat16}
        and asks_for_split(spec)
        and unsuited_job(spec, device) is None
        and unsuited(model, longest) is None
    )


def asks_for_split(spec: FineTuneJobSpec) -> bool:
    """Whether a job's settings are those that split masters are for; the rest is the model's and the kernels' matter."""
    return (
        spec.method is Method.FULL
        and spec.training.precision is Precision.BF16
        and spec.training.optimizer is Optimizer.ADAMW
        and spec.deepspeed is None
    )
