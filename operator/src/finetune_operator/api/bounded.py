"""Limits for code that came with a model: a chat template is a program, and may loop or grow for ever.

Jinja's sandbox keeps a template from Python's objects, not from computing. What runs here is ended by a timer and by the
kernel's limit on address space, so that it costs no process of its own (a fresh one takes seconds to import transformers).
"""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 2.0
"""Of computing, not of waiting: a busy node does not count."""
MEBIBYTES = 512
_MEASURED_EVERY = 64
_SIZE = Path("/proc/self/statm")


class LimitReached(Exception):
    """The code was ended. The message says at which limit."""


@contextmanager
def bounded(seconds: float | None = None, *, of_memory: bool = True) -> Iterator[None]:
    """Raise LimitReached in the block where it computes for too long or takes too much memory.

    Signals reach the main thread alone: in others the block runs without limits. The limit on memory is the whole
    process's: without ``of_memory`` it is left out, where other threads work at the same time.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    allowed = SECONDS if seconds is None else seconds
    before = resource.getrlimit(resource.RLIMIT_AS)
    signal.signal(signal.SIGVTALRM, lambda *_: _end(allowed))
    if of_memory:
        resource.setrlimit(resource.RLIMIT_AS, (_room(before), before[1]))
    signal.setitimer(signal.ITIMER_VIRTUAL, allowed)
    try:
        yield
    except MemoryError as error:
        raise LimitReached(f"it took more than {MEBIBYTES} MiB of memory") from error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _end(seconds: float) -> None:
    raise LimitReached(f"it took more than {seconds:g} s of computing")


class _Size:
    """Address space of this process, looked at now and then: that takes longer than to render most conversations."""

    def __init__(self) -> None:
        self._calls = self._bytes = 0

    def read(self) -> int:
        if self._calls % _MEASURED_EVERY == 0:
            self._bytes = int(_SIZE.read_text().split()[0]) * resource.getpagesize()
        self._calls += 1
        return self._bytes


_size = _Size()


def _room(before: tuple[int, int]) -> int:
    if not _SIZE.exists():  # not Linux: a local run without this limit
        return before[0]
    room = _size.read() + (MEBIBYTES << 20)
    return room if before[0] == resource.RLIM_INFINITY else min(room, before[0])
