"""The base model's files on their way into memory while the training process still imports its libraries."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from finetune_trainer.capacity import memory_limit

_PIECE = 128 << 10
"""Bytes; of what is asked for at once, the kernel reads no more than the device's read-ahead, which is this much or more."""


def read_soon(folder: Path) -> threading.Thread:
    """Have the kernel read the folder's weights ahead, from a thread that nobody needs to wait for.

    Files are read in the order in which they are loaded, and no more than fits beside the process: what is read too early is
    dropped again before it is used. Without effect where the files are in the page cache, or cannot be.
    """
    thread = threading.Thread(target=_read, args=(folder, usable_memory() // 2), name="read-ahead", daemon=True)
    thread.start()
    return thread


def usable_memory() -> int:
    """Bytes that this container may use, page cache included."""
    present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(present, memory_limit() or present)


def _read(folder: Path, room: int) -> None:
    try:
        for file in sorted(folder.glob("*.safetensors")):
            with file.open("rb") as opened:
                size = min(os.fstat(opened.fileno()).st_size, room)
                for place in range(0, size, _PIECE):
                    os.posix_fadvise(opened.fileno(), place, min(_PIECE, size - place), os.POSIX_FADV_WILLNEED)
            room -= size
    except OSError:
        # The loader reads the same files, and says what is wrong with them.
        return
