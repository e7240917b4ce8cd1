"""Folders that appear whole or not at all: written beside, made durable, renamed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from finetune_operator.api.result import sync_folder


def sync_tree(folder: Path) -> None:
    """Make every file and folder below durable, and readable for the other stages' user.

    safetensors creates its files for their owner only, and the serving pod may run as somebody else.
    """
    for parent, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(parent) / name)
        sync_folder(Path(parent))


def sync_file(path: Path) -> None:
    """Make a file durable and readable for everybody."""
    path.chmod(path.stat().st_mode | 0o444)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(written: Path, final: Path) -> None:
    """Move a finished folder into place. What stood there is gone; a crash in between leaves one of the two."""
    sync_tree(written)
    old = final.with_name(f".{final.name}.old")
    remove(old)
    if final.exists() or final.is_symlink():
        final.rename(old)
    written.rename(final)
    sync_folder(final.parent)
    remove(old)


def remove(path: Path) -> None:
    """Delete a file, link or folder; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fresh_folder(path: Path) -> Path:
    """An empty folder, whatever stood there."""
    remove(path)
    path.mkdir(parents=True)
    return path
