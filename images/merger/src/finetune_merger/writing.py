"""Writing a model's files in the background."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from finetune_merger.checkpoint import TensorInfo
from finetune_merger.layout import Layout, Slot
from finetune_merger.writer import Content, Shard, write_shard

log = logging.getLogger(__name__)

_FILES = 2
"""Files in writing: while one is synced, the tensors of the next are written."""
_FEWEST, _MOST = 4, 8
"""Tensors worked on at a time. More than processors, as some wait for the disk; each holds memory."""


class Writing:
    """A model's files being written. To be left only once all are whole, or given up: see ``finish``."""

    def __init__(self, folder: Path, layout: Layout, content: Callable[[Slot], Content]) -> None:
        self._content = content
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._shards = [Shard.plan(folder / file, slots) for file, slots in layout.files.items()]
        self.tensors: dict[str, TensorInfo] = {
            name: info for shard in self._shards for name, info in shard.tensors.items()
        }
        """Where each tensor lies once it is written."""
        self._written: Mapping[str, Future[None]] = {name: Future() for name in self.tensors}

    def __enter__(self) -> Writing:
        workers = min(max(_FEWEST, len(os.sched_getaffinity(0))), _MOST)
        self._pool = ThreadPoolExecutor(workers, initializer=_alone)
        self._files = ThreadPoolExecutor(_FILES)
        self._whole = [self._files.submit(self._write, shard) for shard in self._shards]
        return self

    def __exit__(self, *_: object) -> None:
        self._fail(RuntimeError("the merge was given up"))
        self._files.shutdown(cancel_futures=True)
        self._pool.shutdown()

    def wait_for(self, name: str) -> None:
        """Return once the tensor lies in its file; raises what made the writing fail."""
        if self._failure is not None:
            raise self._failure
        self._written[name].result()

    def finish(self) -> None:
        """Return once every file is whole; raises what made the writing fail."""
        for whole in self._whole:
            whole.result()

    def _write(self, shard: Shard) -> None:
        try:
            if shard.is_written():
                for name in shard.tensors:
                    self._tell(name)
                return
            write_shard(shard, self._checked, self._pool, self._tell)
            log.info("%s written", shard.path.name)
        except BaseException as error:
            self._fail(error)
            raise

    def _checked(self, slot: Slot) -> Content:
        if self._failure is not None:
            raise self._failure
        return self._content(slot)

    def _tell(self, name: str) -> None:
        with self._lock:
            if self._failure is None:
                self._written[name].set_result(None)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = error
                for future in self._written.values():
                    if not future.done():
                        future.set_exception(error)


def _alone() -> None:
    # The threads share the processors already.
    torch.set_num_threads(1)
