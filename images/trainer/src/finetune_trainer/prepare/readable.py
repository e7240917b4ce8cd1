"""Whether the files of a mounted volume may be read by the user that the stage runs as.

Weights that another pod wrote as root are the usual case: safetensors makes files that nobody else may read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from finetune_operator.api.outcome import ExitCode, StageFailure


def refuse_unreadable(path: Path, shown_as: str) -> None:
    """Raise StageFailure (SOURCE_UNREACHABLE) where a file below ``path``, or itself, may not be read; nothing where none is."""
    hidden = sorted(_unreadable(path))
    if not hidden:
        return
    others = f" and {len(hidden) - 1} more" if len(hidden) > 1 else ""
    raise StageFailure(
        ExitCode.SOURCE_UNREACHABLE,
        f"{shown_as}: {hidden[0]}{others} may not be read by user {os.getuid()} (groups {_groups()}): "
        f"{_rights(hidden[0])}; let everybody read it on the volume (chmod -R a+rX), or give it to one of these groups.",
    )


def _unreadable(path: Path) -> Iterator[Path]:
    try:
        mode = path.stat().st_mode
    except PermissionError:
        yield path.parent
        return
    except OSError:
        return
    needed = os.R_OK | os.X_OK if stat.S_ISDIR(mode) else os.R_OK
    if not os.access(path, needed):
        yield path
    elif stat.S_ISDIR(mode):
        for entry in path.iterdir():
            # Neither is anybody's model: caches and snapshots of the storage, and what its check after a crash found.
            if not entry.name.startswith(".") and entry.name != "lost+found":
                yield from _unreadable(entry)


def _groups() -> str:
    return ", ".join(str(group) for group in sorted({os.getgid(), *os.getgroups()}))


def _rights(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "nor may the folder that holds it be looked into"
    return f"it belongs to user {found.st_uid} and group {found.st_gid}, mode {stat.S_IMODE(found.st_mode):04o}"
