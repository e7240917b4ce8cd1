"""Rows for the kernels, and the passes that they make."""

from __future__ import annotations

from typing import Any

import numpy as np

from finetune_operator.api.tokenization import Packing
from finetune_trainer.store import StoredRow
from finetune_trainer.train.data import TOKENS
from finetune_trainer.train.documents import PASSES, DocumentCollator


def some_rows() -> list[StoredRow]:
    """Four rows whose second halves are learnt, of a vocabulary of 97."""
    random = np.random.default_rng(0)
    return [_row(random, length) for length in (5, 11, 7, 16)]


def passes(rows: list[StoredRow]) -> list[dict[str, Any]]:
    """One pass over the rows, each a document of its own."""
    made: list[dict[str, Any]] = DocumentCollator(Packing.NONE, 10_000, 10_000)([[row] for row in rows])[PASSES]
    for inputs in made:
        inputs.pop(TOKENS)
    return made


def _row(random: np.random.Generator, length: int) -> StoredRow:
    ids = random.integers(3, 97, length).astype(np.int32)
    labels = np.where(np.arange(length) < length // 2, -100, ids).astype(np.int32)
    return StoredRow(ids, labels, 0, 0)
