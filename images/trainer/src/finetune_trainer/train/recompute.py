"""Whether to recompute activations in the backward pass (gradient checkpointing), where the job leaves that open."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]

from finetune_operator.api.training import Switch, Training
from finetune_trainer.train.device import Device
from finetune_trainer.train.say import say

MARGIN = 0.9
"""Share of a GPU's memory that a prediction may take and still be sure to fit: it errs by less than the rest."""
WITHOUT_RECOMPUTING = "withoutCheckpointingBytes"
"""Figure of the memory estimate in report.json: peak memory of a GPU when all activations are kept."""


def recomputes_activations(training: Training, device: Device, report: Path) -> bool:
    """As the job says, or else only where activations would not fit by the estimate in prepare's ``report``.

    All processes of a training decide alike.
    """
    if training.gradient_checkpointing is not Switch.AUTO:
        return training.gradient_checkpointing is Switch.ENABLED
    if not device.is_gpu:
        return False
    capacity = torch.cuda.get_device_properties(device.index).total_memory
    needed = _needed(report)
    decision = [needed is None or needed > MARGIN * capacity]
    broadcast_object_list(decision)
    if os.environ.get("RANK", "0") != "0":
        return decision[0]
    how = "on" if decision[0] else "off"
    predicted = "no estimate" if needed is None else f"{needed / 2**30:.1f} GiB predicted without it"
    # With fused kernels, what is measured once the model is there has the last word.
    say(f"train: gradient checkpointing is {how} by the estimate: {predicted}, {capacity / 2**30:.1f} GiB here")
    return decision[0]


def _needed(report: Path) -> int | None:
    try:
        memory: dict[str, Any] = json.loads(report.read_bytes()).get("memory") or {}
    except FileNotFoundError:
        return None
    return memory.get(WITHOUT_RECOMPUTING)
