"""Looks after the training processes of a pod: passes SIGTERM on, ends all when one fails, and all when they hang."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import finetune_trainer
from finetune_operator.api.outcome import TERMINATION_LOG_VARIABLE, ExitCode, StageFailure
from finetune_trainer.train.rank import BEGAN_VARIABLE, LAUNCHER_VARIABLE, PIPE_VARIABLE
from finetune_trainer.train.stacks import FILE_VARIABLE, ask_for_stacks, place
from finetune_trainer.train.watchdog import Phase, Watchdog

SECONDS_TO_END = 20.0
"""Time that the other processes have to end by themselves once one has failed."""
SECONDS_BETWEEN_LOOKS = 0.2
_LONGEST_LOOK = 5 * SECONDS_BETWEEN_LOOKS
_PIPE_BYTES = 1 << 16


@dataclass(slots=True)
class Rank:
    """One training process."""

    process: subprocess.Popen[bytes]
    pipe: int
    """Where its heartbeat is read from."""
    folder: Path
    """Its termination message and stacks."""
    _rest: bytes = b""

    @classmethod
    def start(cls, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Rank:
        """Start the process, told where to leave its last words and its heartbeat."""
        folder.mkdir()
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        told = {
            LAUNCHER_VARIABLE: str(os.getpid()),
            BEGAN_VARIABLE: str(finetune_trainer.BEGAN),
            PIPE_VARIABLE: str(writing),
            FILE_VARIABLE: str(folder / "stacks"),
            TERMINATION_LOG_VARIABLE: str(folder / "words"),
        }
        try:
            process = subprocess.Popen(command, env={**environment, **told}, pass_fds=[writing])
        finally:
            os.close(writing)
        return cls(process, reading, folder)

    def heard(self) -> Iterator[tuple[Phase, int]]:
        """What it has told since the last time."""
        with contextlib.suppress(BlockingIOError):
            *lines, self._rest = (self._rest + os.read(self.pipe, _PIPE_BYTES)).split(b"\n")
            for line in lines:
                phase, _, step = line.decode().partition(" ")
                yield Phase(phase), int(step)


@dataclass(frozen=True, slots=True)
class Failed:
    """The process that failed first. A negative code is the signal that killed it."""

    rank: int
    code: int
    told_to_stop: bool = False
    """SIGTERM had come by then."""


@dataclass(slots=True)
class _Stop:
    """Passes SIGTERM on to all processes."""

    ranks: Sequence[Rank]
    received: bool = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        for rank in self.ranks:
            rank.process.terminate()


@dataclass(slots=True)
class _Watch:
    """One pass after the other over the processes that still run."""

    running: dict[int, Rank]
    watchdog: Watchdog
    stop: _Stop
    failed: Failed | None = None
    deadline: float = math.inf
    looked: float = field(default_factory=time.monotonic)

    def wait(self) -> Failed | None:
        """Until all have ended, or those that outlive a failed one have had their time."""
        while self.running and time.monotonic() < self.deadline:
            for number, rank in list(self.running.items()):
                self._look_at(number, rank)
            self._count_time()
            if self.failed is None and self.watchdog.overdue:
                raise _hung(self.running, self.watchdog)
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return self.failed

    def _look_at(self, number: int, rank: Rank) -> None:
        for phase, step in rank.heard():
            self.watchdog.beat(number, phase, step)
        code = rank.process.poll()
        if code is None:
            return
        del self.running[number]
        self.watchdog.ended(number)
        if code and self.failed is None:
            self.failed = Failed(number, code, self.stop.received)
            self.deadline = time.monotonic() + SECONDS_TO_END

    def _count_time(self) -> None:
        """A long time between two looks means that this process was stopped, and most likely the others too."""
        now = time.monotonic()
        self.watchdog.passed(min(now - self.looked, _LONGEST_LOOK))
        self.looked = now


def supervise(ranks: Sequence[Rank], watchdog: Watchdog) -> Failed | None:
    """Wait for all to end. Raises StageFailure NO_PROGRESS, with all their stacks on stderr, where they hang."""
    stop = _Stop(ranks)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        return _Watch(dict(enumerate(ranks)), watchdog, stop).wait()
    finally:
        signal.signal(signal.SIGTERM, before)
        for rank in ranks:
            rank.process.kill()
            os.close(rank.pipe)


def _hung(running: Mapping[int, Rank], watchdog: Watchdog) -> StageFailure:
    stacks = ask_for_stacks(
        [rank.process.pid for rank in running.values()], [rank.folder / "stacks" for rank in running.values()]
    )
    places = []
    for (number, rank), text in zip(running.items(), stacks, strict=True):
        print(f"--- stacks of process {number} (pid {rank.process.pid}) ---\n{text}", file=sys.stderr, flush=True)
        places.append(f"process {number} is at {place(text) or text.strip()}")
    pace = f" A step takes {watchdog.median_step:.2g} s." if watchdog.median_step else ""
    return StageFailure(
        ExitCode.NO_PROGRESS,
        f"nothing has happened for {watchdog.silence:.0f} s after step {watchdog.step} (told last: {watchdog.doing}), "
        f"expected at most {watchdog.bound:.0f} s.{pace} {'; '.join(places)}. The stacks of all threads are in the log. "
        "Started again, it goes on from the last checkpoint; should it hang at the same place, look there.",
        step=watchdog.step,
    )
