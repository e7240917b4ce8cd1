"""Rows of binary tables, Parquet and Arrow, read batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import IO

import pyarrow  # type: ignore[import-untyped]
import pyarrow.ipc  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from finetune_trainer.prepare.rows import Place, Row

_BATCH = 1000


def parquet_rows(file: IO[bytes], shown_as: str) -> Iterator[Row]:
    """Rows of a Parquet file, which has to be seekable."""
    return _rows(lambda: pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=_BATCH), shown_as, "Parquet")


def arrow_file_rows(file: IO[bytes], shown_as: str) -> Iterator[Row]:
    """Rows of an Arrow IPC file, which has to be seekable."""
    return _rows(lambda: _batches_of_file(file), shown_as, "Arrow")


def arrow_stream_rows(file: IO[bytes], shown_as: str) -> Iterator[Row]:
    """Rows of an Arrow IPC stream, as the datasets library saves them."""
    return _rows(lambda: pyarrow.ipc.open_stream(file), shown_as, "Arrow")


def _batches_of_file(file: IO[bytes]) -> Iterator[pyarrow.RecordBatch]:
    reader = pyarrow.ipc.open_file(file)
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index)


def _rows(open_table: Callable[[], Iterable[pyarrow.RecordBatch]], shown_as: str, kind: str) -> Iterator[Row]:
    number = 0
    try:
        for batch in open_table():
            for start in range(0, batch.num_rows, _BATCH):
                for value in batch.slice(start, _BATCH).to_pylist():
                    yield Row(Place(shown_as, number, is_line=False), value)
                    number += 1
    # Arrow tells damage by errors of its own or OSError, and text that is none by UnicodeDecodeError.
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        yield Row(
            Place(shown_as, number, is_line=False),
            problem=f"is not a readable {kind} file from here on ({cause}), expected a whole one; copy it again",
        )
