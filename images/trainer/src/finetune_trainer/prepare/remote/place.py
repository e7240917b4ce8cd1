"""Files of a download in a job's own folder: linked where that is possible, else copied."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from finetune_trainer.prepare.remote.snapshot import Snapshot


def place(snapshot: Snapshot, files: Path, target: Path) -> None:
    """Give a job files of its own in an empty folder: the cache may be emptied at any time after.

    A hard link costs nothing; another file system gets a copy.
    """
    for file in snapshot.files:
        destination = target / file.path
        destination.parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(files / file.path, destination)


def _link_or_copy(source: Path, destination: Path) -> None:
    try:
        os.link(source, destination)
    except OSError:
        # Another file system (EXDEV), one without hard links, or a file of another user.
        shutil.copyfile(source, destination)
