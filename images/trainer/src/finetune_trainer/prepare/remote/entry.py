"""One repository at one revision on disk: files that were verified, and the manifest that says so."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from finetune_operator.api.result import write_whole
from finetune_trainer.folders import sync_file
from finetune_trainer.prepare.remote import refusals
from finetune_trainer.prepare.remote.locks import locked
from finetune_trainer.prepare.remote.snapshot import Remote, RemoteFile, Snapshot, Source
from finetune_trainer.prepare.remote.verify import fault, sha256_of

MANIFEST = "manifest.json"
_FILES, _PARTIAL, _LOCK = "files", "partial", ".lock"
_AT_ONCE = 8
"""Files that are fetched, or hashed, at the same time."""

T = TypeVar("T")


class Entry:
    """A folder with ``files/``, ``manifest.json`` ({path: sha256}) and, while it is being filled, ``partial/``.

    A file comes into ``files/`` by a rename once its bytes are checked and durable, and counts once the manifest names it.
    """

    def __init__(self, folder: Path, source: Source, *, is_shared: bool) -> None:
        self._folder = folder
        self._is_shared = is_shared
        self._source = source
        self._manifest_guard = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        # Whoever else writes to the cache must not have this job read or write elsewhere.
        if link := next((path for path in (folder, folder / _FILES, folder / _PARTIAL) if path.is_symlink()), None):
            raise OSError(errno.EPERM, "it has a link in place of a folder", str(link))

    def provide(self, remote: Remote, snapshot: Snapshot) -> Path:
        """The folder with the snapshot's files, whole: what is missing or damaged is fetched. Raises StageFailure.

        Two runs that want the same at one time fetch it once.
        """
        busy = f"waiting for another job that downloads {self._source.uri}"
        with locked(self._folder / _LOCK, shared=True, busy=busy):
            missing = self._missing(snapshot)
        if missing:
            with locked(self._folder / _LOCK, shared=False, busy=busy):
                # Another run may have fetched them in between.
                self._fetch_all(remote, snapshot, self._missing(snapshot))
        elif self._is_shared:
            self._prove_access(remote, snapshot)
        return self._folder / _FILES

    def _missing(self, snapshot: Snapshot) -> list[RemoteFile]:
        sums = self._sums()
        return [
            file
            for file, whole in _parallel(lambda file: (file, self._is_whole(file, sums)), snapshot.files)
            if not whole
        ]

    def _is_whole(self, file: RemoteFile, sums: Mapping[str, str]) -> bool:
        path, expected = self._folder / _FILES / file.path, sums.get(file.path)
        if (
            expected is None
            or path.is_symlink()
            or not path.is_file()
            or (file.size is not None and path.stat().st_size != file.size)
        ):
            return False
        if sha256_of(path) == expected and file.sha256 in (None, expected):
            return True
        print(f"prepare: {path} is damaged; it is fetched again", flush=True)
        return False

    def _fetch_all(self, remote: Remote, snapshot: Snapshot, files: list[RemoteFile]) -> None:
        if files:
            print(f"prepare: fetching {len(files)} files of {self._source.uri} ({snapshot.revision})", flush=True)
        _parallel(lambda file: self._fetch(remote, snapshot, file), files)
        shutil.rmtree(self._folder / _PARTIAL, ignore_errors=True)

    def _fetch(self, remote: Remote, snapshot: Snapshot, file: RemoteFile) -> None:
        fetched = fetch_whole(remote, snapshot, file, self._folder / _PARTIAL, self._source)
        sync_file(fetched)
        final = self._folder / _FILES / file.path
        final.parent.mkdir(parents=True, exist_ok=True)
        digest = file.sha256 or sha256_of(fetched)
        fetched.replace(final)
        with self._manifest_guard:
            sums = {**self._sums(), file.path: digest}
            write_whole(self._folder / MANIFEST, json.dumps(sums, indent=1, sort_keys=True).encode())

    def _sums(self) -> dict[str, str]:
        try:
            sums: dict[str, str] = json.loads((self._folder / MANIFEST).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return sums

    def _prove_access(self, remote: Remote, snapshot: Snapshot) -> None:
        """Fetch the smallest file for nothing: what others downloaded is not for a job whose own token may not have it."""
        if snapshot.files:
            smallest = min(snapshot.files, key=lambda file: file.size or 0)
            with tempfile.TemporaryDirectory() as folder:
                remote.fetch(smallest, snapshot, Path(folder))


def fetch_whole(remote: Remote, snapshot: Snapshot, file: RemoteFile, into: Path, source: Source) -> Path:
    """Fetch a file and compare it with what its host says of it; once more from the start if it differs. Raises StageFailure."""
    for _ in range(2):
        path = remote.fetch(file, snapshot, into)
        found = fault(path, file)
        if found is None:
            return path
        path.unlink(missing_ok=True)
    raise refusals.damaged(source, "fetched twice", file.path, found or "")


def _parallel(work: Callable[[RemoteFile], T], files: Iterable[RemoteFile]) -> list[T]:
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        return list(pool.map(work, files))
    finally:
        # After a failure, files that nobody has begun with are left alone.
        pool.shutdown(cancel_futures=True)
