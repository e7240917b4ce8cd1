"""Writes a set of files so that a reader sees either all of the old set or all of the new one.

The layout is the kubelet's: `NAME -> ..data/NAME`, `..data -> ..TIME`, and one rename swaps `..data`.
https://github.com/kubernetes/kubernetes/blob/master/pkg/volume/util/atomic_writer.go
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

_DATA = "..data"


@dataclass(frozen=True)
class FileContent:
    data: bytes
    mode: int


Payload = dict[str, FileContent]
"""Contents by relative path."""


def write(folder: Path, payload: Payload) -> bool:
    """Makes the folder hold exactly the payload; False when it did already."""
    if _current(folder) == payload:
        return False
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    fresh.chmod(0o755)
    for name, content in payload.items():
        _write_file(fresh / name, content)
    old = (folder / _DATA).resolve() if (folder / _DATA).is_symlink() else None
    _replace_link(folder / _DATA, fresh.name)
    _link_names(folder, {Path(name).parts[0] for name in payload})
    if old:
        shutil.rmtree(old)
    return True


def _current(folder: Path) -> Payload | None:
    data = folder / _DATA
    if not data.is_symlink():
        return None
    files = [path for path in data.resolve().rglob("*") if path.is_file()]
    root = data.resolve()
    return {str(f.relative_to(root)): FileContent(f.read_bytes(), f.stat().st_mode & 0o7777) for f in files}


def _write_file(path: Path, content: FileContent) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.data)
    path.chmod(content.mode)


def _replace_link(link: Path, target: str) -> None:
    temporary = link.with_name(f"{link.name}_tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.rename(temporary, link)


def _link_names(folder: Path, names: set[str]) -> None:
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_DATA}/{name}")
