"""Hyper-parameters, evaluation, logging and checkpoints."""

from __future__ import annotations

import enum

from pydantic import Field

from finetune_operator.api.base import ApiModel, Decimal, Rule, WholeOrDecimal
from finetune_operator.api.dataset import Dataset
from finetune_operator.api.optimizer import Adam, SchedulerOptions


class Precision(enum.StrEnum):
    """Number format of the training computation."""

    BF16 = "BF16"
    """bfloat16 (compute capability 8.0 and up)."""
    FP16 = "FP16"
    """float16 with loss scaling."""
    FP32 = "FP32"
    """float32."""
    FP8_BASE = "FP8Base"
    """bfloat16 with frozen base weights in float8 (LoRA only, compute capability 8.9 and up)."""


class Scheduler(enum.StrEnum):
    """Learning-rate schedules of the Hugging Face Trainer."""

    LINEAR = "Linear"
    COSINE = "Cosine"
    COSINE_WITH_RESTARTS = "CosineWithRestarts"
    COSINE_WITH_MIN_LR = "CosineWithMinLR"
    POLYNOMIAL = "Polynomial"
    CONSTANT = "Constant"
    CONSTANT_WITH_WARMUP = "ConstantWithWarmup"
    INVERSE_SQRT = "InverseSqrt"


class Optimizer(enum.StrEnum):
    """Optimizers of the Hugging Face Trainer."""

    ADAMW = "AdamW"
    ADAMW_8BIT = "AdamW8bit"
    PAGED_ADAMW_8BIT = "PagedAdamW8bit"
    PAGED_ADAMW = "PagedAdamW"
    ADAFACTOR = "Adafactor"
    SGD = "SGD"

    @property
    def is_of_bitsandbytes(self) -> bool:
        """Whether the optimizer is bitsandbytes' own rather than PyTorch's or transformers'."""
        return self in (Optimizer.ADAMW_8BIT, Optimizer.PAGED_ADAMW_8BIT, Optimizer.PAGED_ADAMW)


_ADAMW = (Optimizer.ADAMW, Optimizer.ADAMW_8BIT, Optimizer.PAGED_ADAMW_8BIT, Optimizer.PAGED_ADAMW)


class Switch(enum.StrEnum):
    """On, off, or decided by the memory estimate."""

    AUTO = "Auto"
    # not On and Off, which YAML reads as true and false
    ENABLED = "Enabled"
    DISABLED = "Disabled"


class Training(ApiModel):
    """Hyper-parameters. Rates are decimal strings: quote them, "1e-4"."""

    rules = (
        Rule(
            cel="!(has(self.epochs) && has(self.maxSteps))",
            message="epochs and maxSteps exclude each other; set one",
            holds=lambda training: training.epochs is None or training.max_steps is None,
            field=".maxSteps",
        ),
        Rule(
            cel="!has(self.epochs) || double(self.epochs) > 0.0",
            message="must be above 0",
            holds=lambda training: training.epochs is None or float(training.epochs) > 0,
            field=".epochs",
        ),
        Rule(
            cel="double(self.learningRate) > 0.0 && double(self.learningRate) <= 1.0",
            message="must be above 0 and at most 1",
            holds=lambda training: 0 < float(training.learning_rate) <= 1,
            field=".learningRate",
        ),
        Rule(
            cel="!has(self.warmupRatio) || !has(self.warmupSteps)",
            message="warmupRatio and warmupSteps exclude each other; set one",
            holds=lambda training: training.warmup_ratio is None or training.warmup_steps is None,
            field=".warmupSteps",
        ),
        Rule(
            cel="!has(self.warmupRatio) || double(self.warmupRatio) <= 1.0",
            message="must be from 0 to 1",
            holds=lambda training: training.warmup_ratio is None or float(training.warmup_ratio) <= 1,
            field=".warmupRatio",
        ),
        Rule(
            cel="!has(self.adam) || self.optimizer in ['AdamW', 'AdamW8bit', 'PagedAdamW8bit', 'PagedAdamW']",
            message="adam is only for the AdamW optimizers",
            holds=lambda training: training.adam is None or training.optimizer in _ADAMW,
            field=".adam",
        ),
        Rule(
            cel="!has(self.schedulerOptions) || !has(self.schedulerOptions.minLearningRate)"
            " || self.scheduler in ['CosineWithMinLR', 'Polynomial']",
            message="is only for the schedulers CosineWithMinLR and Polynomial",
            holds=lambda training: (
                _option(training, "min_learning_rate") is None
                or training.scheduler in (Scheduler.COSINE_WITH_MIN_LR, Scheduler.POLYNOMIAL)
            ),
            field=".schedulerOptions.minLearningRate",
        ),
        Rule(
            cel="!has(self.schedulerOptions) || !has(self.schedulerOptions.minLearningRate)"
            " || double(self.schedulerOptions.minLearningRate) < double(self.learningRate)",
            message="must be below learningRate",
            holds=lambda training: float(_option(training, "min_learning_rate") or "0") < float(training.learning_rate),
            field=".schedulerOptions.minLearningRate",
        ),
        Rule(
            cel="!has(self.schedulerOptions) || !has(self.schedulerOptions.minLearningRateRatio)"
            " || self.scheduler == 'CosineWithMinLR'",
            message="is only for the scheduler CosineWithMinLR",
            holds=lambda training: (
                _option(training, "min_learning_rate_ratio") is None
                or training.scheduler is Scheduler.COSINE_WITH_MIN_LR
            ),
            field=".schedulerOptions.minLearningRateRatio",
        ),
        Rule(
            cel="!has(self.schedulerOptions) || !has(self.schedulerOptions.cycles)"
            " || self.scheduler == 'CosineWithRestarts'",
            message="is only for the scheduler CosineWithRestarts",
            holds=lambda training: (
                _option(training, "cycles") is None or training.scheduler is Scheduler.COSINE_WITH_RESTARTS
            ),
            field=".schedulerOptions.cycles",
        ),
        Rule(
            cel="!has(self.schedulerOptions) || !has(self.schedulerOptions.power) || self.scheduler == 'Polynomial'",
            message="is only for the scheduler Polynomial",
            holds=lambda training: _option(training, "power") is None or training.scheduler is Scheduler.POLYNOMIAL,
            field=".schedulerOptions.power",
        ),
        Rule(
            cel="!has(self.labelSmoothing) || double(self.labelSmoothing) < 1.0",
            message="must be from 0 to below 1",
            holds=lambda training: training.label_smoothing is None or float(training.label_smoothing) < 1,
            field=".labelSmoothing",
        ),
        Rule(
            cel="!has(self.loraPlusRatio) || double(self.loraPlusRatio) > 0.0",
            message="must be above 0",
            holds=lambda training: training.lora_plus_ratio is None or float(training.lora_plus_ratio) > 0,
            field=".loraPlusRatio",
        ),
        Rule(
            cel="!self.groupByLength || self.shuffle",
            message="groupByLength sorts the rows anew in every epoch; it needs shuffle",
            holds=lambda training: not training.group_by_length or training.shuffle,
            field=".groupByLength",
        ),
    )

    epochs: WholeOrDecimal | None = None
    """Passes over the data, 3 or "0.5". Default: 3, unless maxSteps is set."""
    max_steps: int | None = Field(default=None, ge=1, le=100_000_000)
    """Optimizer steps, instead of epochs."""
    per_device_batch_size: int = Field(default=1, ge=1, le=4096)
    """Sequences a device takes at once."""
    gradient_accumulation_steps: int = Field(default=8, ge=1, le=65536)
    """Micro-batches that make one optimizer step."""
    learning_rate: Decimal = "1e-4"
    """Highest learning rate, such as "1e-4"."""
    scheduler: Scheduler = Scheduler.COSINE
    """How the learning rate moves after the warm-up."""
    scheduler_options: SchedulerOptions | None = None
    """Where the schedule ends, for those that can be told."""
    warmup_ratio: Decimal | None = None
    """Share of the steps over which the learning rate rises, from 0 to 1."""
    warmup_steps: int | None = Field(default=None, ge=0, le=100_000_000)
    """Steps over which the learning rate rises, instead of warmupRatio."""
    weight_decay: Decimal = "0"
    """Weight decay of the optimizer."""
    max_grad_norm: Decimal = "1"
    """Longest gradient; longer ones are scaled down. 0 switches clipping off."""
    precision: Precision = Precision.BF16
    """Number format of the computation."""
    optimizer: Optimizer = Optimizer.ADAMW
    """Optimizer."""
    adam: Adam | None = None
    """Constants of the AdamW optimizers. Default: 0.9, 0.999 and 1e-8."""
    lora_plus_ratio: Decimal | None = None
    """Learning rate of the adapters' B matrices over that of A (LoRA+, arXiv 2402.12354), such as "16". Default: they are the same."""
    neftune_noise_alpha: Decimal | None = None
    """Noise on the embeddings while training (NEFTune, arXiv 2310.05914), such as "5". Default: none."""
    label_smoothing: Decimal | None = None
    """Share of the target's probability that is spread over all tokens, from 0 to below 1. Default: none."""
    seed: int = Field(default=42, ge=0, le=4_294_967_295)
    """Seed of the shuffling, the adapters' first values and the dropout."""
    data_seed: int | None = Field(default=None, ge=0, le=4_294_967_295)
    """Seed of the shuffling, where it is to be another one."""
    gradient_checkpointing: Switch = Switch.AUTO
    """Recompute activations in the backward pass to save memory."""
    fused_kernels: Switch = Switch.AUTO
    """Compute the same with faster kernels and without padding. Auto: on a GPU, where model and settings allow it."""
    shuffle: bool = True
    """Take the rows in another random order in every epoch; false takes them as they stand."""
    group_by_length: bool = False
    """Put rows of about the same length into one batch, which saves padding where nothing is packed."""
    early_stopping_patience: int | None = Field(default=None, ge=1, le=1000)
    """Stop after so many evaluations without a lower loss; needs evaluation."""

    @property
    def sequences_per_step(self) -> int:
        """Sequences that each device takes for one optimizer step."""
        return self.per_device_batch_size * self.gradient_accumulation_steps


def _option(training: Training, name: str) -> str | int | None:
    value: str | int | None = getattr(training.scheduler_options, name, None)
    return value


class EvaluationInterval(enum.StrEnum):
    """When the loss on the rows held back is measured."""

    STEPS = "Steps"
    """Every so many steps, and at the end."""
    EPOCH = "Epoch"
    """At the end of every epoch."""
    END = "End"
    """Once, at the end."""


class CheckpointInterval(enum.StrEnum):
    """When checkpoints are written. One more is written when the pod is told to stop."""

    STEPS = "Steps"
    """Every so many steps, and at the end."""
    EPOCH = "Epoch"
    """At the end of every epoch."""


class Evaluation(ApiModel):
    """Rows held back to measure the loss on."""

    rules = (
        Rule(
            cel="[has(self.fraction), has(self.rows), has(self.dataset)].filter(is_set, is_set).size() == 1",
            message="set exactly one of fraction, rows and dataset",
            holds=lambda evaluation: [evaluation.fraction, evaluation.rows, evaluation.dataset].count(None) == 2,
            field=".fraction",
        ),
        Rule(
            cel="!has(self.fraction) || (double(self.fraction) > 0.0 && double(self.fraction) < 1.0)",
            message="must be above 0 and below 1",
            holds=lambda evaluation: evaluation.fraction is None or 0 < float(evaluation.fraction) < 1,
            field=".fraction",
        ),
    )

    fraction: Decimal | None = None
    """Share of the training rows to hold back, such as "0.1"."""
    rows: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Number of training rows to hold back."""
    dataset: Dataset | None = None
    """A dataset of its own to evaluate on."""
    interval: EvaluationInterval = EvaluationInterval.STEPS
    """Evaluate every so many steps (Steps), after every epoch (Epoch), or only at the end (End)."""
    steps: int = Field(default=500, ge=1, le=100_000_000)
    """Evaluate every so many steps, and at the end; for interval Steps."""
    per_device_batch_size: int = Field(default=1, ge=1, le=4096)
    """Sequences a device takes at once."""
    load_best: bool = False
    """Deliver the checkpoint with the lowest loss on these rows instead of the last state; checkpoints have to fall on evaluations."""


class Logging(ApiModel):
    """What the trainer writes down."""

    steps: int = Field(default=10, ge=1, le=1_000_000)
    """Write loss and learning rate every so many steps."""


class Checkpoints(ApiModel):
    """What a restarted job goes on from."""

    interval: CheckpointInterval = CheckpointInterval.STEPS
    """Write a checkpoint every so many steps (Steps), or after every epoch (Epoch)."""
    steps: int = Field(default=100, ge=1, le=100_000_000)
    """Write a checkpoint every so many steps: the most work a killed pod can lose; for interval Steps."""
    limit: int = Field(default=2, ge=1, le=1000)
    """Keep the newest so many."""
