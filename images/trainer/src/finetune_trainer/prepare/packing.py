"""Which conversations share a sequence. Greedy, longest first, as LLaMA-Factory packs."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Sequence

WINDOW = 1000
"""Rows that are packed among themselves: the batch in which LLaMA-Factory preprocesses."""


def longest_row(cutoff_len: int, *, packed: bool) -> int:
    """Longest conversation, in tokens. A packed sequence keeps one place for padding, as LLaMA-Factory's does."""
    return cutoff_len - 1 if packed else cutoff_len


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of the rows of each sequence; every row fits the capacity."""
    packs: list[list[int]] = []
    for start in range(0, len(lengths), WINDOW):
        window = lengths[start : start + WINDOW]
        packs += [[start + index for index in indices] for indices in _pack_window(window, capacity)]
    return packs


def _pack_window(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    rows_of_length: defaultdict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        rows_of_length[length].append(index)
    left = sorted(lengths)
    packs: list[list[int]] = []
    while left:
        room, chosen = capacity, []
        while (place := bisect.bisect(left, room)) > 0:
            length = left.pop(place - 1)
            room -= length
            chosen.append(rows_of_length[length].pop())
        packs.append(chosen)
    return packs
