"""Whether a file is what its host says it is."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from finetune_trainer.prepare.remote.snapshot import RemoteFile

_BLOCK = 1 << 20
_MD5 = re.compile(r"[0-9a-f]{32}")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hex."""
    return _digest(path, "sha256")


def fault(path: Path, file: RemoteFile) -> str | None:
    """What is wrong with a downloaded file, by size and, where its host told, SHA-256; None where it is whole."""
    if not path.is_file():
        return "it is missing"
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"{size} bytes came, expected {file.size}"
    if file.sha256 is not None:
        return _differs("sha256", _digest(path, "sha256"), file.sha256)
    return None


def md5_fault(path: Path, etag: str | None) -> str | None:
    """What is wrong by the ETag of an object that was uploaded in one piece and is not encrypted; others cannot be told."""
    if etag is None or not _MD5.fullmatch(etag):
        return None
    return _differs("MD5", _digest(path, "md5"), etag)


def _differs(what: str, found: str, expected: str) -> str | None:
    return None if found == expected else f"its {what} is {found}, expected {expected}"


def _digest(path: Path, algorithm: str) -> str:
    # Not for secrecy: S3 names content by its MD5.
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
