"""Limits for code that came with a model: a chat template is a program, and may loop or grow for ever.

Jinja's sandbox keeps a template from Python's objects, not from computing. What runs here is ended by a timer and by the
kernel's limit on address space, so that it costs no process of its own (a fresh one takes seconds to import transformers).
"""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 2.0
"""Of computing, not of waiting: a busy node does not count."""
MEBIBYTES = 512
_SIZE = "/proc/self/statm"


class LimitReached(Exception):
    """The code was ended. The message says at which limit."""


@contextmanager
def bounded(seconds: float | None = None, *, of_memory: bool = True) -> Iterator[None]:
    """Raise LimitReached in the block where it computes for too long or takes too much memory.

    Signals reach the main thread alone: in others the block runs without limits. The limit on memory is the whole
    process's, which may grow by so much from now on: without ``of_memory`` it is left out, where other threads take
    memory at the same time. In prepare none does: downloads have ended, and pyarrow's and the tokenizer's threads
    work only while the main thread waits for them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    allowed = SECONDS if seconds is None else seconds
    before = resource.getrlimit(resource.RLIMIT_AS)
    until = time.thread_time() + allowed
    signal.signal(signal.SIGVTALRM, lambda *_: _end(until, allowed))
    if of_memory:
        resource.setrlimit(resource.RLIMIT_AS, (_room(before), before[1]))
    signal.setitimer(signal.ITIMER_VIRTUAL, allowed)
    try:
        yield
    except MemoryError as error:
        raise LimitReached(f"it took more than {MEBIBYTES} MiB of memory") from error
    finally:
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        finally:  # also where the timer has gone off a moment ago
            resource.setrlimit(resource.RLIMIT_AS, before)


def _end(until: float, seconds: float) -> None:
    # The timer counts what all threads compute, of which this one may have had little.
    left = until - time.thread_time()
    if left > 0:
        # Less than a microsecond would end the timer.
        signal.setitimer(signal.ITIMER_VIRTUAL, max(left, 0.001))
        return
    raise LimitReached(f"it took more than {seconds:g} s of computing")


class _Size:
    """Address space of this process, from a file that stays open: to open it takes as long as to render a conversation."""

    def __init__(self) -> None:
        self._process, self._file = 0, -1

    def read(self) -> int | None:
        """In bytes, as it is now; None where the system does not tell."""
        if self._process != os.getpid():
            self._open()
        if self._file < 0:
            return None
        return int(os.pread(self._file, 64, 0).split(None, 1)[0]) * resource.getpagesize()

    def _open(self) -> None:
        # What a parent process has opened tells the parent's size.
        if self._file >= 0:
            os.close(self._file)
        self._process = os.getpid()
        try:
            self._file = os.open(_SIZE, os.O_RDONLY)
        except FileNotFoundError:  # not Linux: a local run without this limit
            self._file = -1


_size = _Size()


def _room(before: tuple[int, int]) -> int:
    size = _size.read()
    if size is None:
        return before[0]
    room = size + (MEBIBYTES << 20)
    return room if before[0] == resource.RLIM_INFINITY else min(room, before[0])
