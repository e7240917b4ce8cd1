"""The one work queue: every trigger puts a job's key here, and a worker takes it out."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

FIRST_DELAY = 1.0
"""Seconds before the first retry of a key; doubled with each further one."""
LONGEST_DELAY = 60.0


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """A FineTuneJob."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class WorkQueue:
    """Keys to work on, each once however often it was added, and never by two workers at a time.

    The rules are those of client-go's workqueue: a key that is added while it is worked on is handed out again
    when that work is done. Time is the running event loop's.
    """

    def __init__(self) -> None:
        self._ready: deque[Key] = deque()
        self._wanted: set[Key] = set()
        self._in_work: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait for a worker."""
        return len(self._ready)

    def add(self, key: Key) -> None:
        """Have the key worked on as soon as a worker is free."""
        if key in self._wanted:
            return
        self._wanted.add(key)
        if key not in self._in_work:
            self._make_ready(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Have the key worked on after a pause, unless it is due earlier anyway."""
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        pending = self._timers.get(key)
        if pending is not None:
            if pending.when() <= when:
                return
            pending.cancel()
        self._timers[key] = loop.call_at(when, self._due, key)

    def retry(self, key: Key, at_least: float = 0.0) -> float:
        """Have a key that failed worked on again, later with each failure. Returns the pause in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # The exponent is bounded so that a job that fails for months does not overflow
        delay = max(at_least, min(LONGEST_DELAY, FIRST_DELAY * float(1 << min(failures, 16))))
        self.add_after(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """The key was worked on without failure: its next failure is a first one."""
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """Wait for a key. The caller must call `done` with it."""
        while not self._ready:
            self._changed.clear()
            await self._changed.wait()
        key = self._ready.popleft()
        self._wanted.discard(key)
        self._in_work.add(key)
        return key

    def done(self, key: Key) -> None:
        """Work on the key is over, well or ill."""
        self._in_work.discard(key)
        if key in self._wanted:
            self._make_ready(key)

    def _due(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)

    def _make_ready(self, key: Key) -> None:
        self._ready.append(key)
        self._changed.set()
