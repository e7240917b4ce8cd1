"""What the peers' processes share: they import, wait for their turn, count tokens and time their steps.

Imported inside the peers' own environments: nothing of this project's may be needed here.
A step's time is taken with the GPU idle at both ends; tokens are those that are no padding.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import windows
from machine import versions

WARM_UP = 3
PACKAGES = ("torch", "transformers", "peft", "accelerate", "liger-kernel", "bitsandbytes", "datasets")


def set_environment(cache: str) -> None:
    """No look-ups, no trackers, and no preprocessed rows of a run before."""
    os.environ.update(WANDB_DISABLED="true", TOKENIZERS_PARALLELISM="false", HF_DATASETS_CACHE=cache)


class Turn:
    """When this process was started, and how long it has waited since, its imports done, for the GPU to become free."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.waited = 0.0

    def wait(self) -> None:
        """Wait for a line on standard input; ends the process where there comes none."""
        ready = time.time()
        if not sys.stdin.readline():
            sys.exit("the process that measures has ended")
        self.waited = time.time() - ready


def count_tokens(trainer: Any) -> dict[str, Any]:
    """Count the tokens that are no padding of every micro-batch, into "real" of the returned dict."""
    counted: dict[str, Any] = {}
    step = trainer.training_step

    def counting(self: Any, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        pad = getattr(self.processing_class, "pad_token_id", None)
        counted["real"] = counted.get("real", 0) + (inputs["input_ids"] != pad).sum()
        return step(self, model, inputs, *arguments, **options)

    trainer.training_step = counting
    return counted


def clock(turn: Turn, is_tiny: bool) -> Any:
    """A callback for transformers' Trainer that times the steps and ends the training when enough are timed."""
    import torch
    from transformers import Trainer, TrainerCallback

    tokens = count_tokens(Trainer)

    class Clock(TrainerCallback):  # type: ignore[misc]
        """``steps`` as windows.py has them; ``first_step_seconds`` from the start of the process."""

        def __init__(self) -> None:
            self.steps: list[windows.Step] = []
            self.first_step_seconds = 0.0
            self.last = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Note the step."""
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.monotonic()
            if not self.steps:
                self.first_step_seconds = time.time() - turn.began - turn.waited
            self.steps.append((now - self.last, float(tokens.pop("real"))))
            self.last = now
            control.should_training_stop = windows.is_enough(self.steps, WARM_UP, 0 if is_tiny else windows.SECONDS)

    return Clock()


def tell(timed: Any, peer: str, settings: dict[str, Any], packages: Sequence[str]) -> None:
    """Print the line that the process that measures looks for."""
    import torch

    peak = round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None
    found = {
        **windows.figures(timed.steps, WARM_UP),
        "first_step_seconds": round(timed.first_step_seconds, 1),
        "peak_gib": peak,
        "peer": peer,
        "settings": settings,
        "versions": versions((*PACKAGES, *packages)),
    }
    print("RESULT " + json.dumps(found), flush=True)
