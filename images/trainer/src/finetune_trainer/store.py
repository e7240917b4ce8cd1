"""Tokenised rows on the volume: flat arrays that are memory-mapped, never read whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from finetune_operator.api.result import write_whole

Tokens = NDArray[np.int32]

STORE_VERSION = 1
"""Changes when the same input would be stored otherwise, so that stores of older images are made anew."""
META = "meta.json"
TOKENIZER = "tokenizer"
TRAIN, EVALUATION = "train", "evaluation"


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


_ARRAYS = ("input_ids", "labels", "offsets", "sources", "sequences", "sequence_offsets")


class RowStore:
    """Rows of one part (train or evaluation) and the sequences that they are trained in."""

    def __init__(self, folder: Path) -> None:
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        self._input_ids: Tokens = arrays["input_ids"]
        self._labels: Tokens = arrays["labels"]
        self._offsets: NDArray[np.int64] = arrays["offsets"]
        self._sources: Tokens = arrays["sources"]
        self._sequences: Tokens = arrays["sequences"]
        self._sequence_offsets: NDArray[np.int64] = arrays["sequence_offsets"]

    @property
    def rows(self) -> int:
        """Number of conversations."""
        return len(self._offsets) - 1

    @property
    def sequences(self) -> int:
        """Number of sequences; equal to the rows where nothing is packed."""
        return len(self._sequence_offsets) - 1

    def row(self, index: int) -> StoredRow:
        """One conversation."""
        span = slice(self._offsets[index], self._offsets[index + 1])
        file, number = self._sources[index]
        return StoredRow(self._input_ids[span], self._labels[span], int(file), int(number))

    def sequence(self, index: int) -> Iterator[StoredRow]:
        """The conversations of one sequence, in order."""
        for row in self._sequences[self._sequence_offsets[index] : self._sequence_offsets[index + 1]]:
            yield self.row(int(row))


def write_rows(folder: Path, rows: Sequence[StoredRow], sequences: Iterable[Sequence[int]]) -> str:
    """Write one part and return the sha256 of its tokens. ``sequences`` has the row indices of each sequence."""
    folder.mkdir(parents=True)
    lengths = np.array([len(row.input_ids) for row in rows], dtype=np.int64)
    packs = [np.asarray(indices, dtype=np.int32) for indices in sequences]
    arrays: dict[str, NDArray[Any]] = {
        "input_ids": _joined([row.input_ids for row in rows]),
        "labels": _joined([row.labels for row in rows]),
        "offsets": _offsets(lengths),
        "sources": np.array([(row.file, row.number) for row in rows], dtype=np.int32).reshape(-1, 2),
        "sequences": _joined(packs),
        "sequence_offsets": _offsets(np.array([len(pack) for pack in packs], dtype=np.int64)),
    }
    digest = hashlib.sha256()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        if name != "sources":
            digest.update(array.tobytes())
    return digest.hexdigest()


def _joined(parts: Sequence[Tokens]) -> Tokens:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
