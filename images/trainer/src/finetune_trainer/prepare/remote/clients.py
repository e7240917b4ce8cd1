"""The client for each scheme, and patience with a host that is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from finetune_operator.api.source import Scheme
from finetune_trainer.prepare.remote.hugging_face import HuggingFace
from finetune_trainer.prepare.remote.modelscope import ModelScope
from finetune_trainer.prepare.remote.refusals import HostAway
from finetune_trainer.prepare.remote.s3 import S3
from finetune_trainer.prepare.remote.snapshot import Remote, RemoteFile, Snapshot, Source, Wanted

CLIENTS: dict[Scheme, Callable[[Source], Remote]] = {
    Scheme.HUGGING_FACE: HuggingFace,
    Scheme.MODELSCOPE: ModelScope,
    Scheme.S3: S3,
}
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 30.0

T = TypeVar("T")


class Patient:
    """A client that tries again while its host is away, for as long as the settings say."""

    def __init__(self, source: Source) -> None:
        self._remote = CLIENTS[source.parsed.scheme](source)
        self._patience = source.run.patience_seconds

    def snapshot(self, wanted: Wanted) -> Snapshot:
        return self._insist(lambda: self._remote.snapshot(wanted))

    def fetch(self, file: RemoteFile, snapshot: Snapshot, into: Path) -> Path:
        return self._insist(lambda: self._remote.fetch(file, snapshot, into))

    def _insist(self, attempt: Callable[[], T]) -> T:
        pause, give_up = _FIRST_PAUSE, time.monotonic() + self._patience
        while True:
            try:
                return attempt()
            except HostAway as failure:
                if time.monotonic() + pause > give_up:
                    raise
                print(f"prepare: {failure.cause}; trying again in {pause:.0f} s", flush=True)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
