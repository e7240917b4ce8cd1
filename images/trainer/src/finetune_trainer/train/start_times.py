"""What the time until the first step goes to."""

from __future__ import annotations

import os
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import finetune_trainer
from finetune_trainer.train.rank import BEGAN_VARIABLE
from finetune_trainer.train.say import say


class StartTimes(TrainerCallback):  # type: ignore[misc]  # transformers is not type-checked
    """Tells once, after the first step, how long what came before it took. Made when the imports are done."""

    def __init__(self) -> None:
        self._began = float(os.environ.get(BEGAN_VARIABLE, finetune_trainer.BEGAN))
        self._last = self._began
        self._parts: list[str] = []
        self.passed("imports")

    def passed(self, part: str) -> None:
        """This part is over now."""
        now = time.monotonic()
        self._parts.append(f"{part} {now - self._last:.1f}")
        self._last = now

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell, if this was the process's first step."""
        if self._parts and state.is_world_process_zero:
            self.passed("first step")
            say(f"train: first step {self._last - self._began:.1f} s after the start ({', '.join(self._parts)})")
        self._parts = []
