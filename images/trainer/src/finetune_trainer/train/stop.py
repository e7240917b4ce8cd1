"""SIGTERM during training: the step under way is finished and saved, and the exit code says so."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from types import FrameType

from finetune_operator.api.outcome import ExitCode, Figure, StageFailure


class EvaluationStopped(Exception):
    """An evaluation was given up in order to save. It is made good when training goes on."""


class StopSignal:
    """Remembers that SIGTERM came, once it watches for it. Before that, the signal ends the stage at once."""

    def __init__(self) -> None:
        self.received = False

    def watch(self) -> None:
        """Take SIGTERM over: from now on there is something to save."""
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def preempted(step: int, figures: Mapping[str, Figure]) -> StageFailure:
    """The failure that training ends in after SIGTERM."""
    return StageFailure(
        ExitCode.PREEMPTED,
        f"train was told to stop after step {step}, which is saved; started again, it goes on from there.",
        **{**figures, "step": step},
    )
