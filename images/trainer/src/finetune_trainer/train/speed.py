"""How fast a training is, and how much of its time it waits for rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_trainer.train.entry import Entry
from finetune_trainer.train.flops import LearningCost
from finetune_trainer.train.say import say

TOO_LONG = 0.05
"""Share of the time, waited for rows, that is told of. Below 0.01 is what is expected."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Means over an interval by the clock on the wall, with the evaluations and checkpoints that lie in it."""

    tokens_per_second: float
    """Of all processes; tokens that are no padding."""
    tflops_per_second: float | None
    """Of this process's GPU, in learning; None where the model's count is not known."""
    share_of_limit: float | None
    """The same as a share of what the card is sold with, from 0 to 1; None where that is not known."""
    data_wait_share: float
    """From 0 to 1: time that this process's loop stood waiting for a batch.

    No GPU is waited for to measure it. So it is the most that the GPU can have stood idle for want of rows, not what it
    did: work that was queued before, such as the optimizer's, goes on meanwhile.
    """


class SpeedMeter:
    """Counts what one process learns between two readings."""

    def __init__(
        self,
        cost: LearningCost | None,
        limit: float | None = None,
        processes: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``limit`` is the card's, in TFLOP/s. Processes are taken to learn shares of equal size."""
        self._cost = cost
        self._limit = limit
        self._processes = processes
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Start an interval."""
        self._began = self._clock()
        self._tokens = 0
        self._operations = 0
        self._waited = 0.0

    def learnt(self, documents: Sequence[int]) -> None:
        """Count documents of these lengths."""
        self._tokens += sum(documents)
        self._operations += self._cost.of(documents) if self._cost else 0

    def watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches, with the time that each of them is waited for counted."""
        end = object()
        while True:
            began = self._clock()
            batch = next(batches, end)
            self._waited += self._clock() - began
            if batch is end:
                return
            yield batch

    def read(self) -> Speed:
        """The speed since the interval began; the next one begins."""
        seconds = max(self._clock() - self._began, 1e-9)
        tflops = self._operations / seconds / 1e12 if self._cost else None
        speed = Speed(
            tokens_per_second=self._tokens * self._processes / seconds,
            tflops_per_second=tflops,
            share_of_limit=tflops / self._limit if tflops is not None and self._limit else None,
            data_wait_share=min(self._waited / seconds, 1.0),
        )
        self.begin()
        return speed


class WaitWarning:
    """Says once that a training keeps waiting for its rows: over two logged intervals, one behind the other."""

    def __init__(self) -> None:
        self._waited_before = False
        self._told = False

    def look(self, entry: Entry) -> None:
        """Look at one entry of the log."""
        if entry.data_wait_share is None or self._told:
            return
        waits = entry.data_wait_share > TOO_LONG
        if waits and self._waited_before:
            self._told = True
            say(
                f"train: up to step {entry.step}, {entry.data_wait_share:.0%} of the time passed in waiting for rows, expected "
                "under 1%: the job's volume reads too slowly, or the processors are busy. Use a faster storage class, or "
                "raise resources.cpu."
            )
        self._waited_before = waits
