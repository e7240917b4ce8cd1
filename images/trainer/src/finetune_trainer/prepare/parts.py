"""Which rows are trained on and which are evaluated on, and which of them share a sequence."""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.folders import fresh_folder
from finetune_trainer.prepare.packing import pack
from finetune_trainer.store import (
    INPUT_IDS,
    LABELS,
    PART_ROWS,
    SEQUENCE_OFFSETS,
    SEQUENCES,
    TRAIN,
)

Positions = NDArray[np.int64]
"""Rows of the store's table, those that were left out too."""


def write_part(folder: Path, order: Positions, lengths: NDArray[np.int32], capacity: int | None) -> int:
    """Write the rows of one part, in ``order``, and return the number of its sequences.

    ``lengths`` are those of all rows of the table; ``capacity`` is None where every row is a sequence of its own.
    """
    fresh_folder(folder)
    ordered = lengths[order]
    rows = order[ordered > 0].astype(np.int32)
    np.save(folder / PART_ROWS, rows)
    if capacity is None:
        sequences, counts = np.arange(len(rows), dtype=np.int32), np.ones(len(rows), dtype=np.int64)
    else:
        sequences, counts = _packed(ordered, capacity)
    np.save(folder / SEQUENCES, sequences)
    np.save(folder / SEQUENCE_OFFSETS, np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)]))
    return len(counts)


def _packed(lengths: NDArray[np.int32], capacity: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows of all sequences, and how many each has. Rows count from 0, without those that were left out."""
    positions, counts = array("q"), array("q")
    for indices in pack(lengths, capacity):
        positions.extend(indices)
        counts.append(len(indices))
    numbers = np.cumsum(lengths > 0, dtype=np.int32) - 1
    return numbers[np.frombuffer(positions, dtype=np.int64)], np.frombuffer(counts, dtype=np.int64)


def tokens_hash(folder: Path) -> str:
    """sha256 of what is trained on: tokens, labels, order and sequences."""
    digest = hashlib.sha256()
    part = folder / TRAIN
    for path in (
        folder / INPUT_IDS,
        folder / LABELS,
        *(part / name for name in (PART_ROWS, SEQUENCES, SEQUENCE_OFFSETS)),
    ):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
