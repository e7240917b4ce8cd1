"""Rows of a tensor in a file, read when they are asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

CPU = torch.device("cpu")


class RowReader(Protocol):
    """``rows[a:b]`` gives rows a to b of a tensor."""

    def __getitem__(self, wanted: slice, /) -> torch.Tensor: ...


def spans(shape: tuple[int, ...], most: int) -> Iterator[tuple[int, int]]:
    """First row and the one after the last of each block of at most ``most`` elements, or of one row."""
    rows = shape[0]
    step = max(1, most // max(1, math.prod(shape[1:])))
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


@dataclass(frozen=True, slots=True)
class Rows:
    """``rows[a:b]`` reads rows a to b of the tensor.

    They are read into memory of their own rather than mapped: faults on a page each took longer than the arithmetic, and
    pages of a mapping count as resident until the kernel takes them back.
    """

    descriptor: int
    start: int
    """First byte of the tensor in the file."""
    dtype: torch.dtype
    shape: tuple[int, ...]
    device: torch.device
    """Where the rows are put."""

    def __getitem__(self, wanted: slice) -> torch.Tensor:
        first, last, _ = wanted.indices(self.shape[0])
        rows = torch.empty((last - first, *self.shape[1:]), dtype=self.dtype)
        width = math.prod(self.shape[1:]) * self.dtype.itemsize
        _fill(self.descriptor, as_bytes(rows), self.start + first * width)
        return rows.to(self.device)


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor, not copied."""
    # numpy knows no bf16, so the elements are handed over as plain bytes.
    array: np.ndarray[tuple[int], np.dtype[np.uint8]] = tensor.view(-1).view(torch.uint8).numpy()
    return array.data


def _fill(descriptor: int, target: memoryview, offset: int) -> None:
    while target:
        count = os.preadv(descriptor, [target], offset)
        if count == 0:
            raise OSError(f"the file ends {len(target)} bytes before its tensor does; it was changed while it was read")
        target, offset = target[count:], offset + count
