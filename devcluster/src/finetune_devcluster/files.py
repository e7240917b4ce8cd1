"""Files that are whole or absent."""

import os
from pathlib import Path


def write_atomically(file: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write beside, flush to the disk, rename: a killed writer leaves the old file or the new one."""
    data = content.encode() if isinstance(content, str) else content
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    partial.rename(file)
