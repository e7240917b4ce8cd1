"""How long a container that ended waits before it is started again.

Shorter than the kubelet's (10 s doubling to 5 min, reset after 10 min), because this node serves tests.
"""

from __future__ import annotations

FIRST_SECONDS = 1.0
LAST_SECONDS = 30.0
RESET_AFTER_SECONDS = 60.0


class Backoff:
    def __init__(self) -> None:
        self._next = FIRST_SECONDS

    def after_run(self, ran_seconds: float) -> float:
        """Seconds to wait after a run of that length."""
        if ran_seconds >= RESET_AFTER_SECONDS:
            self._next = FIRST_SECONDS
        delay = self._next
        self._next = min(delay * 2, LAST_SECONDS)
        return delay
