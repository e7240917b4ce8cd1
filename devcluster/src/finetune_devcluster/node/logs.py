"""Container logs in the format of the container runtime interface: `TIME STREAM TAG TEXT`, one file a run.

Format: https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from finetune_devcluster.node import clock

MAX_LINE_BYTES = 16 * 1024
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class LogOptions:
    """What `kubectl logs` asks for; `tail_lines` and `limit_bytes` of None mean all."""

    follow: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: datetime | None = None


def format_entry(stream: str, content: bytes, *, complete: bool, now: datetime | None = None) -> bytes:
    tag = b"F" if complete else b"P"
    return b" ".join([clock.rfc3339_nano(now).encode(), stream.encode(), tag, content]) + b"\n"


async def copy_stream(reader: asyncio.StreamReader, stream: str, file: io.RawIOBase) -> None:
    """Writes what the container prints to its log, until the container closes its end."""
    rest = b""
    while chunk := await reader.read(MAX_LINE_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        entries = [entry for line in lines for entry in _entries(stream, line)]
        while len(rest) >= MAX_LINE_BYTES:
            entries.append(format_entry(stream, rest[:MAX_LINE_BYTES], complete=False))
            rest = rest[MAX_LINE_BYTES:]
        file.write(b"".join(entries))
    if rest:
        file.write(format_entry(stream, rest, complete=True))


def _entries(stream: str, line: bytes) -> Iterator[bytes]:
    while len(line) > MAX_LINE_BYTES:
        yield format_entry(stream, line[:MAX_LINE_BYTES], complete=False)
        line = line[MAX_LINE_BYTES:]
    yield format_entry(stream, line, complete=True)


def render(entry: bytes, options: LogOptions) -> bytes:
    """What the reader sees of one entry: nothing when it is older than asked for."""
    time, _, tag, content = entry.rstrip(b"\n").split(b" ", 3)
    if options.since and clock.parse(time.decode()) < options.since:
        return b""
    end = b"" if tag == b"P" else b"\n"
    return (time + b" " if options.timestamps else b"") + content + end


def tail_offset(data: bytes, lines: int) -> int:
    """Where the last `lines` whole lines of a log begin; the parts of a long line count as one."""
    ends = [position for position, entry in _positions(data) if entry.split(b" ", 3)[2] == b"F"]
    if lines == 0:
        return len(data)
    return 0 if len(ends) <= lines else ends[-lines - 1]


def _positions(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    for entry in data.splitlines(keepends=True):
        position += len(entry)
        yield position, entry


async def read(path: Path, options: LogOptions, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log as `kubectl logs` wants it; with `follow`, until `ended()` says that nothing more will come."""
    left = options.limit_bytes
    with path.open("rb") as file:
        if options.tail_lines is not None:
            file.seek(tail_offset(path.read_bytes(), options.tail_lines))
        async for entry in _follow(file, options.follow, ended):
            text = render(entry, options)
            if left is not None:
                text, left = text[:left], left - len(text[:left])
            if text:
                yield text
            if left == 0:
                return


async def _follow(file: io.BufferedReader, follow: bool, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    rest = b""
    while True:
        last = not follow or ended()  # asked before reading: what was written until then is still read
        *entries, rest = (rest + file.read()).split(b"\n")
        for entry in entries:
            yield entry
        if last:
            return
        await asyncio.sleep(_POLL_SECONDS)


def last_output(path: Path, max_lines: int, max_bytes: int) -> str:
    """The end of a log as a termination message (terminationMessagePolicy FallbackToLogsOnError)."""
    if not path.exists():
        return ""
    data = path.read_bytes()
    entries = data[tail_offset(data, max_lines) :].splitlines()
    text = b"".join(render(entry, LogOptions()) for entry in entries)
    return text[-max_bytes:].decode(errors="replace")
