"""Locks that the kernel gives back however their holder ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, *, shared: bool, busy: str) -> Iterator[None]:
    """Hold a lock on the file, alone or with other readers; says ``busy`` once if it has to wait.

    flock(2): the kernel frees it when its process is gone, and on NFS (where Linux makes a byte-range lock of it) the
    server does when the client's lease runs out. There is no stale lock to break. Raises OSError where the file system
    has no locks.
    """
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    # Opened for writing: NFS grants an exclusive lock on no other file.
    with path.open("a") as file:
        try:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"prepare: {busy}", flush=True)
            fcntl.flock(file, mode)
        yield
