"""Optimizers that the Hugging Face Trainer does not make itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from transformers import Trainer

from finetune_trainer.train.split_adamw import SplitAdamW

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from transformers import TrainingArguments


def lora_plus_optimizer(model: PeftModel, arguments: TrainingArguments, ratio: float) -> Optimizer:
    """The job's optimizer, with the adapters' B matrices at ``ratio`` times the learning rate (arXiv 2402.12354)."""
    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    made: Optimizer = create_loraplus_optimizer(
        model,
        optimizer_class,
        loraplus_lr_ratio=ratio,
        loraplus_weight_decay=arguments.weight_decay,
        **options,
    )
    # DeepSpeed cannot shard a group without parameters.
    made.param_groups = [group for group in made.param_groups if group["params"]]
    return made


def split_adamw(model: nn.Module, arguments: TrainingArguments) -> tuple[type[SplitAdamW], dict[str, Any]] | None:
    """What the Trainer is to make its optimizer of where trained weights were left bf16; None where it chooses itself."""
    trained = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
    # DeepSpeed keeps masters of its own.
    if torch.bfloat16 not in trained or arguments.deepspeed:
        return None
    constants = {"betas": (arguments.adam_beta1, arguments.adam_beta2), "eps": arguments.adam_epsilon}
    return SplitAdamW, {"lr": arguments.learning_rate, **constants, "shares": arguments.world_size > 1}
