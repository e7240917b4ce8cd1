"""One line of the trainer's log, with LLaMA-Factory's keys and a few more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known after a logged step. ``seconds`` counts from the start of this process's training."""

    step: int
    total_steps: int
    epoch: float
    seconds: float
    steps_done: int
    """Steps that this process did itself: what the pace is measured on."""
    time: datetime
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    tflops_per_second: float | None = None
    share_of_limit: float | None = None
    data_wait_share: float | None = None

    @property
    def has_loss(self) -> bool:
        """Whether there is a loss to tell, of training or evaluation."""
        return self.loss is not None or self.eval_loss is not None

    @property
    def seconds_a_step(self) -> float:
        """Mean time of a step; 0 before the first one."""
        return self.seconds / self.steps_done if self.steps_done else 0.0

    @property
    def seconds_left(self) -> float:
        """Time to the last step at the present pace."""
        return max(0, self.total_steps - self.step) * self.seconds_a_step

    @property
    def percent(self) -> float:
        """Share of the steps that are done."""
        return round(100 * self.step / self.total_steps, 2) if self.total_steps else 100.0

    def to_log(self) -> dict[str, Any]:
        """The JSON object of trainer_log.jsonl; absent figures are left out."""
        fields = {
            "current_steps": self.step,
            "total_steps": self.total_steps,
            "loss": self.loss,
            "eval_loss": self.eval_loss,
            "lr": self.learning_rate,
            "epoch": self.epoch,
            "percentage": self.percent,
            "elapsed_time": _clock(self.seconds),
            "remaining_time": _clock(self.seconds_left),
            "grad_norm": self.grad_norm,
            "tokens_per_second": _rounded(self.tokens_per_second, 1),
            "tflops_per_second": _rounded(self.tflops_per_second, 3),
            "share_of_limit": _rounded(self.share_of_limit, 4),
            "data_wait_share": _rounded(self.data_wait_share, 5),
            "timestamp": self.time.astimezone(UTC).isoformat(timespec="milliseconds"),
        }
        return {name: value for name, value in fields.items() if value is not None}

    def to_line(self) -> str:
        """One line for people."""
        parts = [f"step {self.step}/{self.total_steps}"]
        parts += [f"loss {self.loss:.4g}"] if self.loss is not None else []
        parts += [f"eval loss {self.eval_loss:.4g}"] if self.eval_loss is not None else []
        parts += [f"lr {self.learning_rate:.2g}"] if self.learning_rate is not None else []
        parts += [f"{self.seconds_a_step:.2g} s/step", f"eta {_brief(self.seconds_left)}"]
        return "  ".join(parts)


def _rounded(figure: float | None, digits: int) -> float | None:
    return None if figure is None else round(figure, digits)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


def _brief(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
