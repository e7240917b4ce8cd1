"""What a tracker has to be able to do, and the figures of the trainer's log by the names that trackers show."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from finetune_operator.api.run import RunConfig

Line = Mapping[str, Any]
"""A line of trainer_log.jsonl."""


class Outcome(enum.StrEnum):
    """How a training process ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    """Told to stop, and saved: another attempt goes on with the same run."""
    FAILED = "failed"


class Tracker(Protocol):
    """One run at one tracker, the same one for every attempt of a job. All methods may raise whatever the network does."""

    def open(self) -> str:
        """Go on with the job's run, or begin it. Returns where people see it."""

    def report(self, lines: Sequence[Line]) -> None:
        """Send lines of the log, in order; those that an earlier attempt has sent are passed over."""

    def close(self, outcome: Outcome) -> None:
        """Send what is left, and say how it ended."""


# The names that the Hugging Face Trainer reports by, so that dashboards for it and for LLaMA-Factory go on working.
_GROUPED = {
    "loss": "train/loss",
    "eval_loss": "eval/loss",
    "lr": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "epoch": "train/epoch",
    "tokens_per_second": "train/tokens_per_second",
    "tflops_per_second": "train/tflops_per_second",
    "share_of_limit": "train/share_of_limit",
    "data_wait_share": "train/data_wait_share",
}


def grouped_figures(line: Line) -> dict[str, float]:
    """Figures of a line by names such as train/loss; empty for a line without a loss."""
    if "loss" not in line and "eval_loss" not in line:
        return {}
    return {name: float(line[key]) for key, name in _GROUPED.items() if key in line}


def plain_figures(line: Line) -> dict[str, float]:
    """The same by names without a group: loss, eval_loss, learning_rate."""
    figures = grouped_figures(line)
    return {name.replace("eval/", "eval_").removeprefix("train/"): value for name, value in figures.items()}


def seconds(line: Line) -> float:
    """When the line was written, in seconds since 1970."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def settings(run: RunConfig) -> dict[str, Any]:
    """What the run was trained with, as it stands in the manifest."""
    fields = ("model", "adapter", "datasets", "method", "lora", "quantization", "deepspeed", "tokenization", "training")
    spec = run.spec.to_manifest()
    return {name: spec[name] for name in (*fields, "evaluation", "resources") if name in spec}
