"""Locks between processes, which the kernel lets go when their holder ends in whatever way."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from finetune_devcluster.progress import say


@contextmanager
def exclusive(file: Path, what: str) -> Iterator[None]:
    """Hold the lock `file`; says what it waits for. The holder may remove the file."""
    lock = _acquire(file, what)
    # Whoever held the lock before may have removed the file: then ours locks out nobody.
    while not _is_at(lock, file):
        lock.close()
        lock = _acquire(file, what)
    with lock:
        yield


def _acquire(file: Path, what: str) -> TextIO:
    lock = file.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting for another process to finish {what} (lock {file})")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _is_at(lock: TextIO, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), file.stat())
    except FileNotFoundError:
        return False
