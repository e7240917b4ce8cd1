"""What happens around the Trainer's steps: reporting, and stopping when told to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_trainer.train.entry import Entry
from finetune_trainer.train.stop import EvaluationStopped, StopSignal
from finetune_trainer.train.trainer import SupervisedTrainer, stop_agreed

Sink = Callable[[Entry], None]


class ReportCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not type-checked
    """Hands an entry to every sink, on the first process only."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.trainer: SupervisedTrainer | None = None
        self._sinks = sinks
        self._began = 0.0
        self._first_step = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock, and tell how many steps there will be."""
        self._began = time.monotonic()
        self._first_step = state.global_step
        if self.trainer is not None:
            self.trainer.meter.begin()
        # Resumed after the last step, the end is told by itself.
        if state.global_step < state.max_steps:
            self._emit(state, {})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Log the last step too, and every saved one: a resumed run's log then goes on without a gap."""
        if control.should_save or state.global_step >= state.max_steps:
            control.should_log = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The same where epochs are saved."""
        if control.should_save:
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Report a logged step, an evaluation, or the end."""
        if state.is_world_process_zero and logs:
            self._emit(state, logs)

    def _emit(self, state: TrainerState, logs: dict[str, Any]) -> None:
        entry = Entry(
            step=state.global_step,
            total_steps=state.max_steps,
            epoch=state.epoch or 0.0,
            seconds=time.monotonic() - self._began,
            steps_done=state.global_step - self._first_step,
            time=datetime.now(UTC),
            loss=logs.get("loss"),
            eval_loss=logs.get("eval_loss"),
            learning_rate=logs.get("learning_rate"),
            grad_norm=logs.get("grad_norm"),
            **(asdict(self.trainer.meter.read()) if self.trainer is not None and "loss" in logs else {}),
        )
        for sink in self._sinks:
            sink(entry)


class StopCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not type-checked
    """Saves and ends after the step during which SIGTERM came."""

    def __init__(self, signal: StopSignal) -> None:
        self._signal = signal
        self.stopped = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Watch for SIGTERM."""
        self._signal.watch()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Give an evaluation up: it could take longer than the pod has left."""
        if stop_agreed(self._signal.received, args.device):
            self.stopped = True
            raise EvaluationStopped

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop where any process was told to; after the last step there is nothing left to stop."""
        if stop_agreed(self._signal.received, args.device) and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True
            self.stopped = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A stop in the middle of an epoch is no end of it: what is due there would be done at the wrong step."""
        if self.stopped:
            control.should_save = control.should_evaluate = control.should_log = False


class CatchUpCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not type-checked
    """Makes good the evaluation that a stopped or killed process owed at the step that is gone on from."""

    def __init__(self) -> None:
        self.trainer: SupervisedTrainer | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate where the schedule says so and the log does not have it."""
        if self.trainer is not None and _owes_evaluation(args, state):
            self.trainer.evaluate_now()


def _owes_evaluation(args: TrainingArguments, state: TrainerState) -> bool:
    step = state.global_step
    if step == 0 or args.eval_strategy == "no":
        return False
    by_steps = args.eval_strategy == "steps" and step % state.eval_steps == 0
    by_epoch = args.eval_strategy == "epoch" and math.isclose(state.epoch, round(state.epoch))
    done = any("eval_loss" in line and line["step"] == step for line in state.log_history)
    return (by_steps or by_epoch or step >= state.max_steps) and not done
