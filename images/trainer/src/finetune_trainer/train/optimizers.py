"""Optimizers that the Hugging Face Trainer does not make itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from transformers import Trainer

if TYPE_CHECKING:
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
