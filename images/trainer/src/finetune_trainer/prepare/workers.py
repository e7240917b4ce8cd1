"""Worker processes that encode batches, with results in the order of the batches.

Started afresh (spawn), not forked: docs/decisions/0007-streaming-prepare.md has the measurements.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_trainer.capacity import CPUS_VARIABLE, memory_limit, usable_cpus
from finetune_trainer.prepare.batch_encoder import BatchEncoder
from finetune_trainer.prepare.batches import Batch, EncodedBatch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_WORKERS = 16
"""Beyond this, the one process that reads the rows cannot keep them busy."""
OWN_BYTES, WORKER_BYTES = 2 << 30, 256 << 20
"""Memory that this process needs, and each worker: with a vocabulary of 150,000 words and batches under way."""

_encoder: BatchEncoder
"""Of a worker process."""


def worker_count() -> int:
    """How many workers pay off; 1 stands for none besides this process."""
    limit = memory_limit()
    affordable = MOST_WORKERS if limit is None else max(1, (limit - OWN_BYTES) // WORKER_BYTES)
    return min(usable_cpus(), affordable, MOST_WORKERS)


class Workers:
    """Encodes batches in other processes. To be used as a context manager."""

    def __init__(self, run: RunConfig, tokenizer: PreTrainedTokenizerBase, count: int) -> None:
        self._count = count
        self._children: set[BaseProcess] = set()
        self._executor = ProcessPoolExecutor(
            count, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(run.dump(), tokenizer)
        )

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def encode(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, EncodedBatch]]:
        """Every batch and what became of it, in order. Raises StageFailure where a worker died."""
        waiting: deque[tuple[Batch, Future[EncodedBatch]]] = deque()
        for batch in batches:
            waiting.append((batch, self._submit(batch)))
            # One batch under way for each worker, and one that it finds when it is done.
            if len(waiting) >= 2 * self._count:
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    def _submit(self, batch: Batch) -> Future[EncodedBatch]:
        try:
            future = self._executor.submit(_encode, batch.dataset, batch.rows)
        except BrokenProcessPool as error:
            raise self._died() from error
        if len(self._children) < self._count:
            self._children |= {child for child in multiprocessing.active_children() if isinstance(child, BaseProcess)}
        return future

    def _next(self, waiting: deque[tuple[Batch, Future[EncodedBatch]]]) -> tuple[Batch, EncodedBatch]:
        batch, future = waiting.popleft()
        try:
            return batch, future.result()
        except BrokenProcessPool as error:
            raise self._died() from error

    def _died(self) -> StageFailure:
        for child in self._children:
            child.join(timeout=5)
        # The executor ends the others with SIGTERM.
        codes = [child.exitcode for child in self._children if child.exitcode not in (0, None, -signal.SIGTERM)]
        if -signal.SIGKILL in codes:
            return StageFailure(
                ExitCode.OUT_OF_MEMORY,
                "prepare: a process that encodes rows was killed, as the kernel does when memory runs out. Give prepare "
                f"more memory (stages.prepare.memory of the operator), or fewer processes ({CPUS_VARIABLE}).",
            )
        return StageFailure(
            ExitCode.INTERNAL,
            f"prepare: a process that encodes rows ended with {codes or 'no code'}; what it said is in the log.",
        )


def _begin(run: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set a worker process up."""
    global _encoder
    # Each worker has a processor of its own.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C reaches all processes of a terminal; the one that reads ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _encoder = BatchEncoder.of(RunConfig.model_validate_json(run, by_alias=True, by_name=False), tokenizer)


def _end_with_parent() -> None:
    # Nobody ends the workers of a process that was killed, and they would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode(dataset: int, rows: list[bytes]) -> EncodedBatch:
    return _encoder.encode(dataset, rows)
