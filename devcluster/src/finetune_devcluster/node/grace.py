"""The time that containers have left to end by themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

_LOOK_AGAIN_SECONDS = 0.25


class Grace:
    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(self._deadline - time.monotonic(), 0.0)

    def shorten(self, seconds: float) -> None:
        """A second deletion of the same pod may leave it less time, never more."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)


async def wait_within(task: asyncio.Task[Any], left: Callable[[], float]) -> bool:
    """Whether the task ended in time; asks again and again how much is left, since that may shrink meanwhile."""
    while not task.done() and (seconds := left()) > 0:
        await asyncio.wait({task}, timeout=min(seconds, _LOOK_AGAIN_SECONDS))
    return task.done()
