"""Tokenised rows on the volume: flat files that are memory-mapped, never read whole.

data/   input_ids.bin labels.bin   int32, the tokens of every row, one row after the other
        rows.bin                   a ROW a row that was read; rows that were left out have no tokens
        train/ evaluation/         rows.npy: which of the rows, in which order
                                   sequences.npy, sequence_offsets.npy: which of these share a sequence
        tokenizer/ meta.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from finetune_operator.api.result import write_whole

Tokens = NDArray[np.int32]
Table = NDArray[np.void]
"""ROWs."""

STORE_VERSION = 2
"""Changes when the same input would be stored otherwise, so that stores of older images are made anew."""
META = "meta.json"
TOKENIZER = "tokenizer"
TRAIN, EVALUATION = "train", "evaluation"
INPUT_IDS, LABELS, ROWS = "input_ids.bin", "labels.bin", "rows.bin"
PART_ROWS, SEQUENCES, SEQUENCE_OFFSETS = "rows.npy", "sequences.npy", "sequence_offsets.npy"

ROW = np.dtype(
    [("start", "<i8"), ("length", "<i4"), ("trained", "<i4"), ("file", "<i4"), ("number", "<i4"), ("hash", "<u8")]
)
"""A row that was read: where its tokens begin, how many there are and are learnt, where it was written, and its identity."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One conversation: ids and labels (-100: not learnt) of the same length, and where it was written."""

    input_ids: Tokens
    labels: Tokens
    file: int
    """Index into ``Meta.files``."""
    number: int
    """Line, or element of a list; negative for an element (-1 is element 0)."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What stands beside the arrays."""

    input_hash: str
    """Identity of everything that the tokens were made from."""
    tokens_hash: str
    """Identity of the tokens themselves (sha256)."""
    files: list[str]
    pad_token_id: int
    stop_token_ids: list[int]
    packing: str
    """How rows share a sequence, by the name of the job's field."""
    report: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the meta data of a finished store. Raises FileNotFoundError where there is none."""
        return cls(**json.loads((folder / META).read_bytes()))

    def save(self, folder: Path) -> None:
        """Write it; a store without it is not finished."""
        write_whole(folder / META, json.dumps(asdict(self), indent=1, ensure_ascii=False).encode())


class RowStore:
    """Rows of one part (train or evaluation) and the sequences that they are trained in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._input_ids: Tokens = _mapped(folder.parent / INPUT_IDS, np.dtype("<i4"))
        self._labels: Tokens = _mapped(folder.parent / LABELS, np.dtype("<i4"))
        self._table: Table = _mapped(folder.parent / ROWS, ROW)
        self._rows: Tokens = np.load(folder / PART_ROWS, mmap_mode="r")
        self._sequences: Tokens = np.load(folder / SEQUENCES, mmap_mode="r")
        self._sequence_offsets: NDArray[np.int64] = np.load(folder / SEQUENCE_OFFSETS, mmap_mode="r")

    def __reduce__(self) -> tuple[type[RowStore], tuple[Path]]:
        # A loader's process maps the files itself; pickled arrays would be copies of all the tokens.
        return RowStore, (self._folder,)

    @property
    def rows(self) -> int:
        """Number of conversations."""
        return len(self._rows)

    @property
    def sequences(self) -> int:
        """Number of sequences; equal to the rows where nothing is packed."""
        return len(self._sequence_offsets) - 1

    @property
    def sequence_lengths(self) -> list[int]:
        """Tokens of every sequence."""
        lengths: list[int] = self._lengths().tolist()
        return lengths

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest sequence."""
        return int(self._lengths().max())

    def most_tokens(self, sequences: int) -> int:
        """Tokens of so many sequences, or of all where there are fewer: the most that any choice of them has."""
        return int(np.sort(self._lengths())[-sequences:].sum())

    def steps(self, sequences: int, most: int) -> list[int]:
        """Tokens of so many sequences at a time as they lie in the store, at most so often."""
        lengths = self._lengths()[: sequences * most]
        return [int(lengths[begin : begin + sequences].sum()) for begin in range(0, len(lengths), sequences)]

    def _lengths(self) -> NDArray[np.int64]:
        rows = self._table["length"][self._rows[self._sequences]]
        lengths: NDArray[np.int64] = np.add.reduceat(rows, self._sequence_offsets[:-1])
        return lengths

    def row(self, index: int) -> StoredRow:
        """One conversation."""
        start, length, _, file, number, _ = self._table[self._rows[index]].item()
        span = slice(start, start + length)
        return StoredRow(self._input_ids[span], self._labels[span], file, number)

    def sequence(self, index: int) -> Iterator[StoredRow]:
        """The conversations of one sequence, in order."""
        for row in self._sequences[self._sequence_offsets[index] : self._sequence_offsets[index + 1]]:
            yield self.row(int(row))


def read_table(folder: Path) -> Table:
    """The ROWs of a store, memory-mapped; the files of an empty one cannot be mapped."""
    return _mapped(folder / ROWS, ROW) if (folder / ROWS).stat().st_size else np.zeros(0, dtype=ROW)


def _mapped(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    # As a plain array: slices of np.memmap cost several times as much.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))
