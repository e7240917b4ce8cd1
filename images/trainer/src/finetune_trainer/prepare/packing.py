"""Which conversations share a sequence. Greedy, longest first, as LLaMA-Factory packs."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

WINDOW = 1000
"""Rows that are packed among themselves: the batch in which LLaMA-Factory preprocesses (with one worker)."""


def longest_row(cutoff_len: int, *, packed: bool) -> int:
    """Longest conversation, in tokens. A packed sequence keeps one place for padding, as LLaMA-Factory's does."""
    return cutoff_len - 1 if packed else cutoff_len


def pack(lengths: Sequence[int] | NDArray[np.int32], capacity: int) -> Iterator[list[int]]:
    """Indices of the rows of each sequence; every row fits the capacity.

    A row of length 0 was left out: it is in no sequence, but takes its place in the window, as in LLaMA-Factory.
    """
    for start in range(0, len(lengths), WINDOW):
        window = np.asarray(lengths[start : start + WINDOW]).tolist()
        for indices in _pack_window(window, capacity):
            yield [start + index for index in indices]


def _pack_window(lengths: Sequence[int], capacity: int) -> Iterator[list[int]]:
    rows_of_length: defaultdict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        rows_of_length[length].append(index)
    left = sorted(length for length in lengths if length)
    while left:
        room, chosen = capacity, []
        while (place := bisect.bisect(left, room)) > 0:
            length = left.pop(place - 1)
            room -= length
            chosen.append(rows_of_length[length].pop())
        yield chosen
