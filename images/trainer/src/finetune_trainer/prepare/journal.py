"""Rows appended to a store's files, and committed now and then, so that a prepare that was killed goes on from there."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from finetune_operator.api.result import write_whole
from finetune_trainer.folders import fresh_folder
from finetune_trainer.prepare.batches import Batch, EncodedBatch
from finetune_trainer.prepare.tally import Tally
from finetune_trainer.store import INPUT_IDS, LABELS, ROW, ROWS

PROGRESS = "progress.json"
"""Marks what is committed: as many rows and tokens of the files as it says, and what was counted up to there."""


class Journal:
    """The files of a store that is being made. To be used as a context manager.

    What a killed process left behind the last commit is cut off. Files of another input are deleted.
    """

    def __init__(self, folder: Path, input_hash: str) -> None:
        self._folder = folder
        self._input_hash = input_hash
        saved = _read_progress(folder, input_hash)
        if not saved:
            fresh_folder(folder)
        self.tallies = [Tally.load(tally) for tally in saved.get("tallies", [])]
        """Of the datasets, as they stood at the last commit; none before the first one."""
        self._file_numbers: dict[str, int] = {name: number for number, name in enumerate(saved.get("files", []))}
        self._rows: int = saved.get("rows", 0)
        self._tokens: int = saved.get("tokens", 0)
        self._committed = (self._rows, self._tokens)
        with ExitStack() as stack:
            self._streams = {
                name: stack.enter_context((folder / name).open("ab")) for name in (INPUT_IDS, LABELS, ROWS)
            }
            for name, size in _sizes(saved).items():
                self._streams[name].truncate(size)
            self._stack = stack.pop_all()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def files(self) -> list[str]:
        """Names of the files that rows came from: what a row's ``file`` counts."""
        return list(self._file_numbers)

    @property
    def uncommitted(self) -> tuple[int, int]:
        """Rows and tokens since the last commit."""
        return self._rows - self._committed[0], self._tokens - self._committed[1]

    def append(self, batch: Batch, encoded: EncodedBatch) -> None:
        """Add the rows of a batch."""
        numbers = self._file_numbers
        table = np.zeros(len(batch.rows), dtype=ROW)
        table["start"] = self._tokens + np.cumsum(encoded.lengths) - encoded.lengths
        table["length"], table["trained"], table["hash"] = encoded.lengths, encoded.trained, encoded.hashes
        table["file"] = [numbers.setdefault(place.file, len(numbers)) for place in batch.places]
        table["number"] = [place.number if place.is_line else -place.number - 1 for place in batch.places]
        for name, array in ((INPUT_IDS, encoded.input_ids), (LABELS, encoded.labels), (ROWS, table)):
            self._streams[name].write(array.tobytes())
        self._rows += len(table)
        self._tokens += len(encoded.input_ids)

    def commit(self, tallies: Sequence[Tally]) -> None:
        """Make everything so far durable, and mark it as done."""
        for stream in self._streams.values():
            stream.flush()
            os.fsync(stream.fileno())
        progress = {
            "inputHash": self._input_hash,
            "rows": self._rows,
            "tokens": self._tokens,
            "files": self.files,
            "tallies": [tally.save() for tally in tallies],
        }
        write_whole(self._folder / PROGRESS, json.dumps(progress, ensure_ascii=False).encode())
        self._committed = (self._rows, self._tokens)


def _read_progress(folder: Path, input_hash: str) -> dict[str, Any]:
    """What the last commit marked; empty where there is none that goes with the input and the files."""
    try:
        saved: dict[str, Any] = json.loads((folder / PROGRESS).read_bytes())
        whole = all((folder / name).stat().st_size >= size for name, size in _sizes(saved).items())
    except (OSError, ValueError):
        return {}
    return saved if whole and saved["inputHash"] == input_hash else {}


def _sizes(saved: dict[str, Any]) -> dict[str, int]:
    tokens = 4 * saved.get("tokens", 0)
    return {INPUT_IDS: tokens, LABELS: tokens, ROWS: ROW.itemsize * saved.get("rows", 0)}
