"""Reads batches before they are needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Self

_END = object()


class ReadAhead(Iterator[Any]):
    """An iterator that a thread of its own reads ``ahead`` items ahead, in order.

    A thread and no process: making a batch of memory-mapped rows takes less than sending it from one process to another,
    waiting for a disk needs no interpreter, and nothing has to be forked beside CUDA or to fit into /dev/shm.
    ``begin`` is called by the thread first.
    """

    def __init__(self, source: Iterator[Any], ahead: int, begin: Callable[[], None]) -> None:
        self._source = source
        self._reader = ThreadPoolExecutor(1, "batches", begin)
        self._coming: deque[Future[Any]] = deque(self._read() for _ in range(ahead))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        item = self._coming[0].result()
        if item is _END:
            raise StopIteration
        self._coming.popleft()
        self._coming.append(self._read())
        return item

    def settle(self) -> None:
        """Return once the thread has read as far ahead as it will, and rests."""
        wait(self._coming)

    def close(self) -> None:
        """Give up what has not been read; returns once the item that is being read is there."""
        self._reader.shutdown(cancel_futures=True)

    def _read(self) -> Future[Any]:
        return self._reader.submit(next, self._source, _END)
