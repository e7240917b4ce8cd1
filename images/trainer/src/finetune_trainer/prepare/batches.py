"""Rows on their way to the encoder, and what it makes of them: small enough to pass between processes."""

from __future__ import annotations

import enum
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.prepare.rows import Place, Row
from finetune_trainer.store import Tokens

BATCH_ROWS = 1000
BATCH_BYTES = 4 << 20
"""A batch ends at either, so that a dataset of long rows takes no more memory than one of short ones."""


@dataclass(slots=True)
class Batch:
    """Consecutive rows of one dataset."""

    dataset: int
    """Which of the job's."""
    places: list[Place] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)
    """Each a pickled (value, problem)."""


class Verdict(enum.Enum):
    """What is to be said of a row."""

    DROPPED = "dropped"
    """Left out."""
    FAULTY = "faulty"
    """Ends the stage."""
    SUSPECT = "suspect"
    """Trained on, and worth a word."""
    HOPELESS = "hopeless"
    """Ends the stage at once, as it would be said of every row: the template does not suit."""


@dataclass(frozen=True, slots=True)
class Note:
    """Why a row is not trained on, or what is suspicious about it."""

    index: int
    """Of the row in its batch."""
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """The tokens of a batch. Arrays over its rows have 0 where a row has none."""

    input_ids: Tokens
    labels: Tokens
    lengths: NDArray[np.int32]
    trained: NDArray[np.int32]
    hashes: NDArray[np.uint64]
    truncated: int
    """Rows that were cut."""
    notes: list[Note]
    faults: dict[str, int] = field(default_factory=dict)
    """Rows by what LLaMA-Factory's rules did to them."""


def batched(dataset: int, rows: Iterable[Row], most_rows: int = BATCH_ROWS) -> Iterator[Batch]:
    """The rows in batches."""
    batch, size = Batch(dataset), 0
    for row in rows:
        packed = pickle.dumps((row.value, row.problem), pickle.HIGHEST_PROTOCOL)
        batch.places.append(row.place)
        batch.rows.append(packed)
        size += len(packed)
        if len(batch.rows) >= most_rows or size >= BATCH_BYTES:
            yield batch
            batch, size = Batch(dataset), 0
    if batch.rows:
        yield batch
