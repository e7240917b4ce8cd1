"""Hyper-parameters, evaluation, logging and checkpoints."""

from __future__ import annotations

import enum

from pydantic import Field

from finetune_operator.api.base import ApiModel, Decimal, Rule, WholeOrDecimal
from finetune_operator.api.dataset import Dataset


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
    ADAFACTOR = "Adafactor"
    SGD = "SGD"


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
    seed: int = Field(default=42, ge=0, le=4_294_967_295)
    """Seed of the shuffling, the adapters' first values and the dropout."""
    gradient_checkpointing: Switch = Switch.AUTO
    """Recompute activations in the backward pass to save memory."""
    shuffle: bool = True
    """Take the rows in another random order in every epoch; false takes them as they stand."""
    early_stopping_patience: int | None = Field(default=None, ge=1, le=1000)
    """Stop after so many evaluations without a lower loss; needs evaluation."""


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
    steps: int = Field(default=500, ge=1, le=100_000_000)
    """Evaluate every so many steps, and at the end."""
    per_device_batch_size: int = Field(default=1, ge=1, le=4096)
    """Sequences a device takes at once."""


class Logging(ApiModel):
    """What the trainer writes down."""

    steps: int = Field(default=10, ge=1, le=1_000_000)
    """Write loss and learning rate every so many steps."""


class Checkpoints(ApiModel):
    """What a restarted job goes on from."""

    steps: int = Field(default=100, ge=1, le=100_000_000)
    """Write a checkpoint every so many steps: the most work a killed pod can lose."""
    limit: int = Field(default=2, ge=1, le=1000)
    """Keep the newest so many."""
