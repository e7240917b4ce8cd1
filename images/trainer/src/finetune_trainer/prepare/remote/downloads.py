"""Where downloads lie: in the cache that jobs share, or in the job's own folder where there is none."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from pathlib import Path

from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare.remote.clients import Patient
from finetune_trainer.prepare.remote.entry import Entry
from finetune_trainer.prepare.remote.pins import pinned
from finetune_trainer.prepare.remote.snapshot import Snapshot, Source, Wanted

OWN_STORE = ".hub"
"""Folder of a job for what it downloads, where jobs share no cache or the cache fails."""
_SEGMENT = re.compile(r"[^/\\\x00-\x1f\x7f]{1,200}")
_CACHE_FAULTS = frozenset(
    {
        errno.ENOENT,
        errno.ESTALE,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOLCK,
        errno.ENOSYS,
        errno.EOPNOTSUPP,
    }
)


def resolve(source: Source, wanted: Wanted) -> Snapshot:
    """The wanted files of a source, at the revision that this run holds on to. Raises StageFailure."""
    source.run.paths.root.mkdir(parents=True, exist_ok=True)
    return pinned(source, Patient(source), lambda path: _stays_inside(path) and wanted(path))


def provide(source: Source, snapshot: Snapshot) -> Path:
    """Download what is not there yet; returns a folder with the snapshot's files, every one verified. Raises StageFailure.

    The folder may be shared with other jobs: nobody writes into it.
    """
    cache = source.run.cache
    if cache is not None and _is_usable(Path(cache), source):
        try:
            return _provide(Path(cache), source, snapshot, is_shared=True)
        except OSError as error:
            if error.errno not in _CACHE_FAULTS:
                raise
            print(
                f"prepare: the cache {cache} cannot be used ({error.strerror}); this job downloads for itself",
                flush=True,
            )
    return _provide(own_store(source.run), source, snapshot, is_shared=False)


def _is_usable(cache: Path, source: Source) -> bool:
    # A namespace need not have the cache's claim: then nothing is mounted. A local run makes its folder.
    if not source.run.namespace:
        with contextlib.suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True)
    if cache.is_dir():
        return True
    print(f"prepare: there is no cache at {cache}; this job downloads for itself", flush=True)
    return False


def _stays_inside(path: str) -> bool:
    """A host names the files: none may lead out of the folder that they are written to, or be no name for a file at all."""
    return all(_SEGMENT.fullmatch(segment) and segment not in (".", "..") for segment in path.split("/"))


def own_store(run: RunConfig) -> Path:
    """The job's own downloads."""
    return run.paths.root / OWN_STORE


def discard_own_store(run: RunConfig) -> None:
    """Make room once nothing is read from the job's own downloads any more."""
    shutil.rmtree(own_store(run), ignore_errors=True)


def _provide(store: Path, source: Source, snapshot: Snapshot, *, is_shared: bool) -> Path:
    parsed = source.parsed
    name = parsed.owner.replace("/", "--")
    folder = store / parsed.scheme.value / f"{source.kind}s" / name / snapshot.revision
    return Entry(folder, source, is_shared=is_shared).provide(Patient(source), snapshot)
