"""The job's hyper-parameters as the Hugging Face Trainer takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from finetune_operator.api.optimizer import Adam, SchedulerOptions
from finetune_operator.api.run import RunConfig
from finetune_operator.api.training import (
    CheckpointInterval,
    EvaluationInterval,
    Optimizer,
    Precision,
    Scheduler,
    Training,
)
from finetune_trainer.train.deepspeed import deepspeed_config
from finetune_trainer.train.device import Device

DEFAULT_EPOCHS = 3.0
# No training has so many steps: the evaluation that is left is the one after the last step.
_AT_THE_END_ONLY = 1_000_000_000

_OPTIMIZERS = {
    Optimizer.ADAMW: "adamw_torch",
    Optimizer.ADAMW_8BIT: "adamw_8bit",
    Optimizer.PAGED_ADAMW_8BIT: "paged_adamw_8bit",
    Optimizer.PAGED_ADAMW: "paged_adamw_32bit",
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
# CosineWithMinLR has no default for the rate that it falls to; a tenth is what the papers that use it take.
_MIN_LEARNING_RATE_RATIO = 0.1
# The Trainer's own end of a polynomial schedule; it refuses a rate that begins below its end.
_POLYNOMIAL_END = 1e-7


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
        lr_scheduler_kwargs=_scheduler_options(training),
        warmup_steps=_warmup(training),
        weight_decay=float(training.weight_decay),
        max_grad_norm=float(training.max_grad_norm),
        optim=_optimizer(run, device),
        **_adam(training.adam),
        neftune_noise_alpha=float(training.neftune_noise_alpha or "0") or None,
        label_smoothing_factor=float(training.label_smoothing or "0"),
        seed=training.seed,
        data_seed=training.data_seed,
        train_sampling_strategy=_sampling(training),
        bf16=device.autocast is Precision.BF16,
        fp16=device.autocast is Precision.FP16,
        use_cpu=not device.is_gpu,
        logging_steps=run.spec.logging.steps,
        # The project's own guard stops a run whose loss is not finite; this filter would hide it.
        logging_nan_inf_filter=False,
        save_strategy="epoch" if run.spec.checkpoints.interval is CheckpointInterval.EPOCH else "steps",
        save_steps=run.spec.checkpoints.steps,
        # Else the patience of early stopping begins anew with every restart.
        restore_callback_states_from_checkpoint=True,
        **_evaluation(run),
        deepspeed=deepspeed_config(run.spec),
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
        dataloader_pin_memory=device.is_gpu,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )


def _optimizer(run: RunConfig, device: Device) -> str:
    name = _OPTIMIZERS[run.spec.training.optimizer]
    # One kernel for all weights: the other form makes copies as large as all of them. DeepSpeed brings its own.
    fuses = device.is_gpu and run.spec.deepspeed is None and run.spec.training.optimizer is Optimizer.ADAMW
    return f"{name}_fused" if fuses else name


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


def _scheduler_options(training: Training) -> dict[str, Any]:
    options = training.scheduler_options or SchedulerOptions()
    if training.scheduler is Scheduler.COSINE_WITH_MIN_LR:
        if options.min_learning_rate is not None:
            return {"min_lr": float(options.min_learning_rate)}
        return {"min_lr_rate": float(options.min_learning_rate_ratio or _MIN_LEARNING_RATE_RATIO)}
    if training.scheduler is Scheduler.COSINE_WITH_RESTARTS:
        return {"num_cycles": options.cycles or 1}
    if training.scheduler is Scheduler.POLYNOMIAL:
        default = _POLYNOMIAL_END if float(training.learning_rate) > _POLYNOMIAL_END else 0.0
        end = default if options.min_learning_rate is None else float(options.min_learning_rate)
        return {"lr_end": end, "power": float(options.power or "1")}
    return {}


def _adam(adam: Adam | None) -> dict[str, float]:
    constants = adam or Adam()
    return {
        "adam_beta1": float(constants.beta1),
        "adam_beta2": float(constants.beta2),
        "adam_epsilon": float(constants.epsilon),
    }


def _sampling(training: Training) -> str:
    if training.group_by_length:
        return "group_by_length"
    return "random" if training.shuffle else "sequential"


def _evaluation(run: RunConfig) -> dict[str, Any]:
    evaluation = run.spec.evaluation
    if evaluation is None:
        return {"eval_strategy": "no"}
    return {
        "eval_strategy": "epoch" if evaluation.interval is EvaluationInterval.EPOCH else "steps",
        "eval_steps": _AT_THE_END_ONLY if evaluation.interval is EvaluationInterval.END else evaluation.steps,
        "per_device_eval_batch_size": evaluation.per_device_batch_size,
        "prediction_loss_only": True,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
    }
