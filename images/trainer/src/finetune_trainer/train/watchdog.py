"""Decides that training hangs: no step for too long, told apart from what may take its time.

Runs in the process that started the training ones, because a process that hangs may be unable to run any Python: one
that waits for a page of a dead network volume holds the interpreter's lock while it does.
"""

from __future__ import annotations

import enum
from collections import deque
from statistics import median

from finetune_operator.api.run import WatchdogBounds

_REMEMBERED_STEPS = 101


class Phase(enum.StrEnum):
    """What a training process does."""

    SETUP = "setup"
    """Imports, loading, looking for a checkpoint, the first step."""
    STEP = "step"
    """A step was made; the next is under way."""
    TRAIN = "train"
    """Back to training from something else."""
    EVALUATE = "evaluate"
    SAVE = "save"
    FINISH = "finish"
    """Writing the result."""


_IN_STEPS = frozenset({Phase.STEP, Phase.TRAIN})


class Watchdog:
    """Follows the processes of one pod. Knows no clock: time is what it is told has passed while it was awake.

    So a pod that is frozen, or a machine that sleeps, does not look as if it had hung.
    """

    def __init__(self, bounds: WatchdogBounds) -> None:
        self._bounds = bounds
        self._phases: dict[int, Phase] = {}
        self._steps: deque[float] = deque(maxlen=_REMEMBERED_STEPS)
        self.silence = 0.0
        """Seconds since any process has told of anything."""
        self.step = 0
        """Steps done."""

    def beat(self, rank: int, phase: Phase, step: int) -> None:
        """A process has told what it does."""
        if phase is Phase.STEP and self._phases.get(rank) in _IN_STEPS and step > self.step:
            self._steps.append(self.silence)
        self._phases[rank] = phase
        self.step = max(self.step, step)
        self.silence = 0.0

    def ended(self, rank: int) -> None:
        """A process has ended, so its silence means nothing."""
        self._phases.pop(rank, None)

    def passed(self, seconds: float) -> None:
        """So much time has passed, during which this process could look and listen."""
        self.silence += seconds

    @property
    def overdue(self) -> bool:
        """Whether nothing has happened for longer than what is done now may take."""
        return self.silence > self.bound

    @property
    def bound(self) -> float:
        """Seconds of silence that are borne now. Where processes do different things, the slowest one counts."""
        if not self._phases or any(phase not in _IN_STEPS for phase in self._phases.values()):
            return self._bounds.seconds_otherwise
        return max(self._bounds.seconds, self._bounds.median_steps * self.median_step)

    @property
    def median_step(self) -> float:
        """Seconds that a step takes; 0 before it is known."""
        return median(self._steps) if self._steps else 0.0

    @property
    def doing(self) -> str:
        """What the processes told last."""
        return ", ".join(sorted({phase.value for phase in self._phases.values()})) or Phase.SETUP.value
