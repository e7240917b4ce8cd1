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
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from finetune_merger.checkpoint import FORMATS, TensorInfo
from finetune_merger.layout import Slot
from finetune_merger.rows import as_bytes
from finetune_operator.api.result import sync_folder

_ALIGNMENT = 8
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


@dataclass(frozen=True, slots=True)
class Shard:
    """One file, before it is written."""

    path: Path
    header: bytes
    places: dict[Slot, int]
    """First byte of each tensor, in the order of the file."""

    @classmethod
    def plan(cls, path: Path, slots: Sequence[Slot]) -> Shard:
        """Lay out the file."""
        # Wide formats first keeps every tensor aligned to its own width, as safetensors' own writer does.
        ordered = sorted(slots, key=lambda slot: (-FORMATS[slot.dtype].itemsize, slot.name))
        header = _header(ordered)
        starts = itertools.accumulate((slot.size for slot in ordered), initial=len(header))
        return cls(path, header, dict(zip(ordered, starts, strict=False)))

    @property
    def beside(self) -> Path:
        """The file's name until it is whole."""
        return _beside(self.path)

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """What the file holds."""
        return {
            slot.name: TensorInfo(self.path.name, slot.dtype, slot.shape, start) for slot, start in self.places.items()
        }

    def is_written(self) -> bool:
        """Whether the file is there: it bears its name only once it is whole."""
        try:
            with self.path.open("rb") as file:
                return file.read(len(self.header)) == self.header
        except FileNotFoundError:
            return False


def write_shard(
    shard: Shard, content: Callable[[Slot], Content], pool: Executor, told: Callable[[str], object] = lambda _: None
) -> None:
    """Write one file: beside, fsynced, renamed.

    ``content`` and ``told``, which hears of each tensor that lies in the file, are called in the pool's threads.
    """
    with shard.beside.open("wb", buffering=0) as file:
        _write(file.fileno(), memoryview(shard.header), 0)

        def write(slot: Slot) -> None:
            _write_tensor(file.fileno(), shard.places[slot], slot, content(slot))
            told(slot.name)

        written = [pool.submit(write, slot) for slot in sorted(shard.places, key=in_order)]
        wait(written, return_when=FIRST_EXCEPTION)
        for future in written:
            future.cancel()
        # None may go on once the file is closed.
        wait(written)
        for future in written:
            if not future.cancelled():
                future.result()
        os.fsync(file.fileno())
    shard.beside.replace(shard.path)
    sync_folder(shard.path.parent)


def in_order(slot: Slot) -> list[tuple[str, int]]:
    """Key that sorts tensors by their layer's number: nearly as the model computes with them."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D+)(\d*)", slot.name)]


def open_written(path: Path) -> IO[bytes]:
    """A file that may still be in writing."""
    try:
        return _beside(path).open("rb")
    except FileNotFoundError:
        return path.open("rb")


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _write_tensor(target: int, start: int, slot: Slot, parts: Content) -> None:
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
