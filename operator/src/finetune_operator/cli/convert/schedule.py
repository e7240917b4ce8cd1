"""Optimizer and learning-rate schedule: keys and ``lr_scheduler_kwargs`` as fields of spec.training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from finetune_operator.api.training import Optimizer, Scheduler
from finetune_operator.cli.convert.names import OPTIMIZERS, SCHEDULERS, decimal
from finetune_operator.cli.convert.settings import Settings
from finetune_operator.cli.manifest.problems import show

Block = dict[str, Any]

_OPTIONS: Mapping[Scheduler, Mapping[str, str]] = {
    Scheduler.COSINE_WITH_MIN_LR: {"min_lr": "minLearningRate", "min_lr_rate": "minLearningRateRatio"},
    Scheduler.COSINE_WITH_RESTARTS: {"num_cycles": "cycles"},
    Scheduler.POLYNOMIAL: {"lr_end": "minLearningRate", "power": "power"},
}
"""Field of schedulerOptions for each entry of lr_scheduler_kwargs."""
_ADAM = {"beta1": "adam_beta1", "beta2": "adam_beta2", "epsilon": "adam_epsilon"}


def schedule(settings: Settings) -> Block:
    """Scheduler, warm-up and optimizer; names that are unknown were reported and are left out."""
    ratio, steps = settings.get("warmup_ratio"), settings.number("warmup_steps")
    # As in transformers 5: the ratio wins, and steps below 1 are a ratio.
    share = ratio if ratio is not None else steps if steps < 1 else 0.0
    scheduler, optimizer = SCHEDULERS.get(settings.text("lr_scheduler_type")), OPTIMIZERS.get(settings.text("optim"))
    options = _scheduler_options(settings, scheduler)
    return {
        **({"scheduler": scheduler.value} if scheduler else {}),
        **({"schedulerOptions": options} if options else {}),
        **({"warmupRatio": decimal(share)} if share else {}),
        **({"warmupSteps": int(steps)} if ratio is None and steps >= 1 else {}),
        **({"optimizer": optimizer.value} if optimizer else {}),
        **_adam(settings, optimizer),
    }


def _adam(settings: Settings, optimizer: Optimizer | None) -> Block:
    if optimizer in (Optimizer.ADAFACTOR, Optimizer.SGD):
        for key in filter(settings.is_set, _ADAM.values()):
            settings.findings.note(key, "is read for the AdamW optimizers only")
        return {}
    constants = {field: decimal(settings.number(key)) for field, key in _ADAM.items() if settings.is_set(key)}
    return {"adam": constants} if constants else {}


def _scheduler_options(settings: Settings, scheduler: Scheduler | None) -> Block:
    given = _given(settings)
    known = _OPTIONS.get(scheduler, {}) if scheduler else {}
    if scheduler is Scheduler.COSINE_WITH_MIN_LR and not given.keys() & known.keys():
        expected = "expected lr_scheduler_kwargs with min_lr or min_lr_rate; LLaMA-Factory refuses it without; set one"
        settings.findings.problem("lr_scheduler_type", f"found cosine_with_min_lr alone, {expected}")
    options: Block = {}
    for name, value in given.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if name not in known or not is_number:
            expected = f"expected {' or '.join(known) or 'none'} with a number for {settings.text('lr_scheduler_type')}"
            settings.findings.problem(
                "lr_scheduler_kwargs", f"found {name}: {show(value)}, {expected}; other options cannot be set"
            )
        else:
            options[known[name]] = int(value) if name == "num_cycles" else decimal(float(value))
    return options


def _given(settings: Settings) -> Block:
    """The options, which may also be written as a JSON object in quotes."""
    options = settings.get("lr_scheduler_kwargs")
    if isinstance(options, str):
        try:
            options = json.loads(options)
        except ValueError:
            options = [options]
    if options is not None and not isinstance(options, dict):
        settings.findings.problem(
            "lr_scheduler_kwargs", f"found {show(options)}, expected names and numbers; correct it"
        )
        return {}
    return options or {}
