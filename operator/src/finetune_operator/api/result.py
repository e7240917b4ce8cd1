"""result.json: the figures of each finished stage, kept on the job's volume. Also how any file is replaced whole."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_operator.api.outcome import Figure


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file so that a reader, or a crash at any moment, sees the old content or the new, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        # On a full disk, what does not fit must not take up the last of the room.
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Figures of the stages that have finished; empty where none has."""
    try:
        parsed: dict[str, dict[str, Any]] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return parsed


def record_stage(path: Path, stage: str, figures: Mapping[str, Figure]) -> None:
    """Add the figures of a finished stage."""
    write_whole(path, json.dumps({**read_results(path), stage: dict(figures)}, indent=1).encode())
