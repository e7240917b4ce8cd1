"""What a training process tells the one that started it: what it does now, over a pipe.

The reader is ``watchdog.py``. Silence is the news: so telling must cost nothing and must never hold training up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Self

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_trainer.train.rank import PIPE_VARIABLE
from finetune_trainer.train.watchdog import Phase


class Heartbeat:
    """Writes a line each time that something was done."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._last = (Phase.SETUP, 0)
        if descriptor is not None:
            # A reader that was stopped must not stop the training as well.
            os.set_blocking(descriptor, False)

    @classmethod
    def from_environment(cls) -> Self:
        """To whoever started this process."""
        descriptor = os.environ.get(PIPE_VARIABLE)
        return cls(int(descriptor) if descriptor else None)

    def beat(self, phase: Phase, step: int = 0) -> None:
        """Tell what begins now, and how many steps are done."""
        self._last = (phase, step)
        if self._descriptor is not None:
            # Full, or nobody reads any more: the next one says as much.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._descriptor, f"{phase} {step}\n".encode())

    def alive(self) -> None:
        """Tell that what was begun goes on."""
        self.beat(*self._last)

    @contextlib.contextmanager
    def during(self, phase: Phase, step: int) -> Iterator[None]:
        """Tell of something that is no training, until it is over."""
        self.beat(phase, step)
        yield
        self.beat(Phase.TRAIN, step)


class HeartbeatCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not type-checked
    """Tells of steps, and of what counts as progress where there are none."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat
        self._stepped = False

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell of each micro-batch of the first step: kernels are compiled, and nobody knows how long a step takes."""
        if not self._stepped:
            self._heartbeat.beat(Phase.SETUP, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell of a step."""
        self._stepped = True
        self._heartbeat.beat(Phase.STEP, state.global_step)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell of a batch of an evaluation."""
        self._heartbeat.beat(Phase.EVALUATE, state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell that the result is written now."""
        self._heartbeat.beat(Phase.FINISH, state.global_step)
