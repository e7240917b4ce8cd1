"""The job's hyper-parameters as the Hugging Face Trainer takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from finetune_operator.api.run import RunConfig
from finetune_operator.api.training import Optimizer, Precision, Scheduler, Training
from finetune_trainer.train.deepspeed import deepspeed_config
from finetune_trainer.train.device import Device

DEFAULT_EPOCHS = 3.0

_OPTIMIZERS = {
    Optimizer.ADAMW: "adamw_torch",
    Optimizer.ADAMW_8BIT: "adamw_8bit",
    Optimizer.PAGED_ADAMW_8BIT: "paged_adamw_8bit",
    Optimizer.ADAFACTOR: "adafactor",
    Optimizer.SGD: "sgd",
}
_SCHEDULERS = {
    Scheduler.LINEAR: "linear",
    Scheduler.COSINE: "cosine",
    Scheduler.COSINE_WITH_RESTARTS: "cosine_with_restarts",
    Scheduler.COSINE_WITH_MIN_LR: "cosine_with_min_lr",
    Scheduler.POLYNOMIAL: "polynomial",
    Scheduler.CONSTANT: "constant",
    Scheduler.CONSTANT_WITH_WARMUP: "constant_with_warmup",
    Scheduler.INVERSE_SQRT: "inverse_sqrt",
}
# This schedule has no default for the rate that it falls to; a tenth is what the papers that use it take.
_SCHEDULER_OPTIONS = {Scheduler.COSINE_WITH_MIN_LR: {"min_lr_rate": 0.1}}


def training_arguments(run: RunConfig, device: Device, staging: Path) -> TrainingArguments:
    """Arguments of the Trainer, which writes its checkpoints to ``staging``."""
    training = run.spec.training
    return TrainingArguments(
        output_dir=str(staging),
        **_length(training),
        per_device_train_batch_size=training.per_device_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        learning_rate=float(training.learning_rate),
        lr_scheduler_type=_SCHEDULERS[training.scheduler],
        lr_scheduler_kwargs=_SCHEDULER_OPTIONS.get(training.scheduler),
        warmup_steps=_warmup(training),
        weight_decay=float(training.weight_decay),
        max_grad_norm=float(training.max_grad_norm),
        optim=_OPTIMIZERS[training.optimizer],
        seed=training.seed,
        train_sampling_strategy="random" if training.shuffle else "sequential",
        bf16=device.autocast is Precision.BF16,
        fp16=device.autocast is Precision.FP16,
        use_cpu=not device.is_gpu,
        logging_steps=run.spec.logging.steps,
        # The project's own guard stops a run whose loss is not finite; this filter would hide it.
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=run.spec.checkpoints.steps,
        **_evaluation(run),
        deepspeed=deepspeed_config(run.spec),
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
        dataloader_pin_memory=device.is_gpu,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )


def _length(training: Training) -> dict[str, Any]:
    if training.max_steps is not None:
        return {"max_steps": training.max_steps}
    return {"num_train_epochs": float(training.epochs) if training.epochs is not None else DEFAULT_EPOCHS}


def _warmup(training: Training) -> float:
    """A number of steps, or below 1 a share of all steps, as the Trainer reads it."""
    if training.warmup_steps is not None:
        return training.warmup_steps
    ratio = float(training.warmup_ratio or "0")
    # 1 would be read as one step; the largest share below it rounds up to all steps.
    return min(ratio, 1 - 1e-9)


def _evaluation(run: RunConfig) -> dict[str, Any]:
    evaluation = run.spec.evaluation
    if evaluation is None:
        return {"eval_strategy": "no"}
    return {
        "eval_strategy": "steps",
        "eval_steps": evaluation.steps,
        "per_device_eval_batch_size": evaluation.per_device_batch_size,
        "prediction_loss_only": True,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
    }
