"""Finer settings of the optimizer and of the learning-rate schedule; absent ones are the Hugging Face Trainer's."""

from __future__ import annotations

from pydantic import Field

from finetune_operator.api.base import ApiModel, Decimal, Rule


class Adam(ApiModel):
    """Constants of AdamW (arXiv 1711.05101)."""

    rules = (
        Rule(
            cel="double(self.beta1) < 1.0",
            message="must be below 1",
            holds=lambda adam: float(adam.beta1) < 1,
            field=".beta1",
        ),
        Rule(
            cel="double(self.beta2) < 1.0",
            message="must be below 1",
            holds=lambda adam: float(adam.beta2) < 1,
            field=".beta2",
        ),
    )

    beta1: Decimal = "0.9"
    """Decay of the mean of the gradients."""
    beta2: Decimal = "0.999"
    """Decay of the mean of their squares."""
    epsilon: Decimal = "1e-8"
    """Added to the denominator."""


class SchedulerOptions(ApiModel):
    """How a learning-rate schedule falls; each option belongs to the schedules that it names."""

    rules = (
        Rule(
            cel="!has(self.minLearningRate) || !has(self.minLearningRateRatio)",
            message="minLearningRate and minLearningRateRatio exclude each other; set one",
            holds=lambda options: options.min_learning_rate is None or options.min_learning_rate_ratio is None,
            field=".minLearningRateRatio",
        ),
        Rule(
            cel="!has(self.minLearningRateRatio) || double(self.minLearningRateRatio) <= 1.0",
            message="must be from 0 to 1",
            holds=lambda options: (
                options.min_learning_rate_ratio is None or float(options.min_learning_rate_ratio) <= 1
            ),
            field=".minLearningRateRatio",
        ),
    )

    min_learning_rate: Decimal | None = None
    """CosineWithMinLR, Polynomial: the rate at the end."""
    min_learning_rate_ratio: Decimal | None = None
    """CosineWithMinLR: the rate at the end as a share of learningRate. Default: 0.1."""
    cycles: int | None = Field(default=None, ge=1, le=1000)
    """CosineWithRestarts: how often the rate falls. Default: 1."""
    power: Decimal | None = None
    """Polynomial: power of the curve. Default: 1."""
