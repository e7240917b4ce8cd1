"""The rows of one optimizer step as documents laid end to end: no padding, and as few passes as memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from finetune_operator.api.tokenization import Packing
from finetune_trainer.kernels.documents import LONGEST, STARTS
from finetune_trainer.sequences import IGNORED, sequence_ids, sequence_labels
from finetune_trainer.store import StoredRow, Tokens
from finetune_trainer.train.data import TOKENS

PASSES = "passes"
"""Key of a batch with the inputs of its forward passes."""


@dataclass(frozen=True, slots=True)
class DocumentCollator:
    """Makes the passes of one batch. A document is what attention may look at: a conversation, or a plainly packed sequence."""

    packing: Packing
    at_once: int
    """Tokens of a batch up to which it is one pass."""
    in_parts: int
    """Where it is several, each takes whole sequences up to this many tokens, and at least one."""

    def __call__(self, sequences: Sequence[list[StoredRow]]) -> dict[str, Any]:
        """The batch: its passes, and all targets for the Trainer to count."""
        is_one = sum(map(_length, sequences)) <= self.at_once
        passes = [self._pass(group) for group in ([sequences] if is_one else _groups(sequences, self.in_parts))]
        targets = torch.cat([inputs["targets"] for inputs in passes])
        return {
            # First: the Trainer takes the size of a batch from its first tensor.
            "lengths": torch.tensor([_length(rows) for rows in sequences]),
            "labels": targets,
            "shift_labels": targets,
            PASSES: passes,
        }

    def _pass(self, sequences: Sequence[list[StoredRow]]) -> dict[str, Any]:
        documents = [document for rows in sequences for document in self._documents(rows)]
        lengths = np.array([len(ids) for ids, _ in documents])
        following = np.concatenate([np.append(labels[1:], IGNORED) for _, labels in documents])
        learnt = np.flatnonzero(following != IGNORED)
        # As with padding, positions begin anew with every conversation, also where attention does not.
        positions = [np.arange(len(row.input_ids)) for rows in sequences for row in rows]
        return {
            "input_ids": _flat([ids for ids, _ in documents]).unsqueeze(0),
            "position_ids": _flat(positions).unsqueeze(0),
            "learnt": torch.from_numpy(learnt),
            "targets": _flat([following[learnt]]),
            STARTS: torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)),
            LONGEST: int(lengths.max()),
            TOKENS: lengths.tolist(),
        }

    def _documents(self, rows: list[StoredRow]) -> list[tuple[Tokens, Tokens]]:
        groups = [[row] for row in rows] if self.packing is Packing.SEGMENTED else [rows]
        return [(sequence_ids(group), sequence_labels(group, self.packing)) for group in groups]


def _groups(sequences: Sequence[list[StoredRow]], limit: int) -> Iterator[Sequence[list[StoredRow]]]:
    group: list[list[StoredRow]] = []
    tokens = 0
    for rows in sequences:
        length = _length(rows)
        if group and tokens + length > limit:
            yield group
            group, tokens = [], 0
        group.append(rows)
        tokens += length
    yield group


def _length(rows: list[StoredRow]) -> int:
    return sum(len(row.input_ids) for row in rows)


def _flat(parts: Sequence[Any]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))
