"""The heads of a few rows, for the merge: it proves on them that the merged model answers as base and adapter do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from finetune_operator.api.result import write_whole
from finetune_trainer.store import RowStore

ROWS = 4
TOKENS = 64
"""Tokens taken of each row: four rows of 64 are 256 predictions over the whole vocabulary, seconds of computing for 7B."""


def write_parity_rows(store: RowStore, path: Path) -> None:
    """Write the heads of rows from all over the store."""
    chosen = sorted({int(row) for row in np.linspace(0, store.rows - 1, ROWS)})
    heads = [store.row(row).input_ids[:TOKENS].tolist() for row in chosen]
    write_whole(path, json.dumps(heads).encode())
