"""Ids and labels of a sequence of conversations, without padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune_operator.api.tokenization import Packing
from finetune_trainer.store import StoredRow, Tokens

IGNORED = -100
"""Label of a token that is not learnt."""


def sequence_ids(rows: Sequence[StoredRow]) -> Tokens:
    """The conversations' ids, one after the other."""
    return np.concatenate([row.input_ids for row in rows])


def sequence_labels(rows: Sequence[StoredRow], packing: Packing) -> Tokens:
    """The labels that belong to ``sequence_ids``."""
    labels = [np.array(row.labels) for row in rows]
    # A segment's first token has nothing before it that it could be predicted from.
    for following in labels[1:] if packing is Packing.SEGMENTED else []:
        following[0] = IGNORED
    return np.concatenate(labels)
