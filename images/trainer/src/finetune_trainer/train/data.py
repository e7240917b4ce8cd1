"""Batches from the stored rows: padded, or several conversations a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from finetune_operator.api.tokenization import Packing
from finetune_trainer.sequences import IGNORED, sequence_ids, sequence_labels
from finetune_trainer.store import RowStore, StoredRow

MULTIPLE = 8
"""Sequences are padded to a multiple of this, as LLaMA-Factory pads them: matrix units like it."""
TOKENS = "real_tokens"
"""Key of a batch with the tokens, without padding, of each of its documents; the trainer takes it out before the model.

A document is what attention looks at: a conversation, or a plainly packed sequence.
"""


class SequenceDataset(Dataset[list[StoredRow]]):
    """The stored sequences, each the list of its conversations."""

    def __init__(self, store: RowStore) -> None:
        self._store = store

    def __len__(self) -> int:
        return self._store.sequences

    def __getitem__(self, index: int) -> list[StoredRow]:
        return list(self._store.sequence(index))

    @property
    def lengths(self) -> list[int]:
        """Tokens of every sequence."""
        return self._store.sequence_lengths


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes one batch. Attention stays inside a conversation with Segmented packing, inside the sequence with Plain."""

    pad_token_id: int
    packing: Packing

    def __call__(self, sequences: Sequence[list[StoredRow]]) -> dict[str, Any]:
        """Tensors of shape (sequences, length), padded on the right."""
        lengths = [sum(len(row.input_ids) for row in rows) for rows in sequences]
        shape = (len(sequences), -(-max(lengths) // MULTIPLE) * MULTIPLE)
        input_ids = np.full(shape, self.pad_token_id, dtype=np.int64)
        labels = np.full(shape, IGNORED, dtype=np.int64)
        for index, (rows, length) in enumerate(zip(sequences, lengths, strict=True)):
            input_ids[index, :length] = sequence_ids(rows)
            labels[index, :length] = sequence_labels(rows, self.packing)
        batch: dict[str, Any] = {
            "input_ids": torch.from_numpy(input_ids),
            "labels": torch.from_numpy(labels),
            TOKENS: _documents(sequences, lengths, self.packing),
        }
        if self.packing is not Packing.NONE:
            batch["position_ids"] = _restarting_positions(sequences, shape)
        # Without a mask, transformers builds the block-diagonal one from the positions.
        if self.packing is not Packing.SEGMENTED:
            batch["attention_mask"] = _padding_mask(lengths, shape)
        return batch


def _documents(sequences: Sequence[list[StoredRow]], lengths: list[int], packing: Packing) -> list[int]:
    return [len(row.input_ids) for rows in sequences for row in rows] if packing is Packing.SEGMENTED else lengths


def _padding_mask(lengths: list[int], shape: tuple[int, int]) -> Tensor:
    return (torch.arange(shape[1]).unsqueeze(0) < torch.tensor(lengths).unsqueeze(1)).long()


def _restarting_positions(sequences: Sequence[list[StoredRow]], shape: tuple[int, int]) -> Tensor:
    """Positions that begin at 0 in every conversation. Padding has 0 everywhere: segments that nothing else sees."""
    positions = np.zeros(shape, dtype=np.int64)
    for index, rows in enumerate(sequences):
        begin = 0
        for row in rows:
            positions[index, begin : begin + len(row.input_ids)] = np.arange(len(row.input_ids))
            begin += len(row.input_ids)
    return torch.from_numpy(positions)
