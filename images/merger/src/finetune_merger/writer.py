"""Write safetensors files as their tensors come, so that none is ever held whole.

The format (github.com/huggingface/safetensors): eight bytes with the header's length, a JSON header with each tensor's
number format, shape and byte range, then the tensors end to end. Where each tensor goes is known from the start, so that
several are read, computed and written at a time.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import torch

from finetune_merger.checkpoint import BITS
from finetune_merger.layout import Slot
from finetune_merger.rows import as_bytes
from finetune_operator.api.result import sync_folder

_ALIGNMENT = 8
_THREADS = 4
"""Tensors worked on at a time: two processors compute while others wait for the disk."""
_PIECE = 16 << 20
_CANNOT_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes of another file that are taken over as they are."""

    path: Path
    start: int
    size: int


Content = Iterable[torch.Tensor] | FileRange
"""A tensor's rows in order, in as many parts as it likes; or where it lies already."""


def write_shard(path: Path, slots: Sequence[Slot], content: Callable[[Slot], Content]) -> None:
    """Write one file: beside, fsynced, renamed. ``content`` is called in several threads at once."""
    # Wide formats first keeps every tensor aligned to its own width, as safetensors' own writer does.
    ordered = sorted(slots, key=lambda slot: (-BITS[slot.dtype], slot.name))
    header = _header(ordered)
    starts = itertools.accumulate((slot.size for slot in ordered), initial=len(header))
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("wb", buffering=0) as file:
        _write(file.fileno(), memoryview(header), 0)
        _write_all(file.fileno(), dict(zip(ordered, starts, strict=False)), content)
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def _write_all(target: int, places: dict[Slot, int], content: Callable[[Slot], Content]) -> None:
    with ThreadPoolExecutor(_THREADS, initializer=_alone) as pool:
        # The largest first, so that none is left to one thread at the end.
        largest = sorted(places, key=lambda slot: -slot.size)
        written = [pool.submit(_write_tensor, target, places[slot], slot, content) for slot in largest]
        wait(written, return_when=FIRST_EXCEPTION)
        _raise_first(written)


def _alone() -> None:
    # The threads share the processors already.
    torch.set_num_threads(1)


def _raise_first(written: Sequence[Future[None]]) -> None:
    for future in written:
        future.cancel()
    for future in written:
        if not future.cancelled():
            future.result()


def _write_tensor(target: int, start: int, slot: Slot, content: Callable[[Slot], Content]) -> None:
    parts = content(slot)
    if isinstance(parts, FileRange):
        written = parts.size
        _copy(parts, target, start)
    else:
        written = 0
        for part in parts:
            written += _write(target, as_bytes(part.cpu().contiguous()), start + written)
    if written != slot.size:
        raise ValueError(f"{slot.name}: {written} bytes came, {slot.size} were announced")
    # Has the kernel begin to write these pages now, rather than all of them when the file is synced.
    os.posix_fadvise(target, start, slot.size, os.POSIX_FADV_DONTNEED)


def _write(target: int, content: memoryview, offset: int) -> int:
    size = len(content)
    while content:
        count = os.pwrite(target, content, offset)
        content, offset = content[count:], offset + count
    return size


def _copy(source: FileRange, target: int, offset: int) -> None:
    """Copy inside the kernel, which some file systems do without moving a byte; else piece by piece."""
    with source.path.open("rb", buffering=0) as file:
        done = _copy_in_kernel(file.fileno(), source, target, offset)
        while done < source.size:
            piece = os.pread(file.fileno(), min(_PIECE, source.size - done), source.start + done)
            if not piece:
                raise OSError(f"{source.path} ends {source.size - done} bytes before its tensor does; fetch it again")
            done += _write(target, memoryview(piece), offset + done)


def _copy_in_kernel(file: int, source: FileRange, target: int, offset: int) -> int:
    """Bytes that were copied: all of them, or fewer where the file system cannot."""
    done = 0
    try:
        while done < source.size:
            count = os.copy_file_range(
                file, target, min(_PIECE, source.size - done), source.start + done, offset + done
            )
            if count == 0:
                break
            done += count
    except OSError as error:
        if error.errno not in _CANNOT_COPY:
            raise
    return done


def _header(slots: Sequence[Slot]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for slot in slots:
        entries[slot.name] = {"dtype": slot.dtype, "shape": slot.shape, "data_offsets": (offset, offset + slot.size)}
        offset += slot.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
