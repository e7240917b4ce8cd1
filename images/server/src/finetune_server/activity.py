"""What the engine is working on. It answers one request after the other: a long one must not make the pod look dead."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

PROBE_HEADER = "x-finetune-probe"
"""Marks the probe's request."""
STUCK_SECONDS = 900.0
"""A request that takes longer no longer counts as work."""


class Activity:
    """Requests that the engine works on, and whether it has ever answered the probe."""

    def __init__(self) -> None:
        self._started: dict[object, float] = {}
        self.has_answered = False

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while the block runs."""
        token = object()
        self._started[token] = time.monotonic()
        try:
            yield
        finally:
            del self._started[token]

    def is_busy(self) -> bool:
        """Whether an engine that is known to answer is working on a request, and not stuck in it."""
        if not self.has_answered or not self._started:
            return False
        return time.monotonic() - min(self._started.values()) < STUCK_SECONDS
