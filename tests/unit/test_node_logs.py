"""Container logs of the process node: written as the runtime interface says, read as `kubectl logs` asks."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from finetune_devcluster.node.logs import (
    MAX_LINE_BYTES,
    LogOptions,
    copy_stream,
    format_entry,
    last_output,
    read,
    tail_offset,
)

NOON = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
ONE = datetime(2026, 1, 1, 13, 0, 0, tzinfo=UTC)


def entry(text: bytes, *, complete: bool = True, at: datetime = NOON) -> bytes:
    return format_entry("stdout", text, complete=complete, now=at)


async def write(path: Path, *chunks: bytes) -> None:
    reader = asyncio.StreamReader()
    for chunk in chunks:
        reader.feed_data(chunk)
    reader.feed_eof()
    with path.open("ab", buffering=0) as file:
        await copy_stream(reader, "stdout", file)


def shown(path: Path, options: LogOptions) -> bytes:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in read(path, options, lambda: True)])

    return asyncio.run(collect())


def test_an_entry_has_time_stream_tag_and_text() -> None:
    assert entry(b"hello world") == b"2026-01-01T12:00:00.000000000Z stdout F hello world\n"


@pytest.mark.parametrize(
    "chunks",
    [
        (b"a\nb\n\nc",),
        (b"a", b"\n", b"b\n\n", b"c"),
        (b"\n\n",),
        (b"x" * (MAX_LINE_BYTES * 2 + 5), b"\nshort\n"),
        (b"x" * MAX_LINE_BYTES, b"\n"),
        (b"caf\xc3", b"\xa9 \xff\xfe binary\n"),
    ],
)
def test_what_was_printed_is_what_is_shown(tmp_path: Path, chunks: tuple[bytes, ...]) -> None:
    log = tmp_path / "0.log"
    asyncio.run(write(log, *chunks))
    printed = b"".join(chunks)
    assert shown(log, LogOptions()) == printed + (b"" if printed.endswith(b"\n") else b"\n")
    assert all(len(line) < MAX_LINE_BYTES + 100 for line in log.read_bytes().splitlines())


@pytest.mark.parametrize(
    ("lines", "expected"), [(0, b""), (1, b"three\n"), (2, b"two\nthree\n"), (9, b"one\ntwo\nthree\n")]
)
def test_the_last_lines_are_shown(tmp_path: Path, lines: int, expected: bytes) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(entry(b"one") + entry(b"two") + entry(b"three"))
    assert shown(log, LogOptions(tail_lines=lines)) == expected


def test_the_parts_of_a_long_line_count_as_one() -> None:
    data = entry(b"first") + entry(b"long-", complete=False) + entry(b"er", complete=False) + entry(b"line")
    assert tail_offset(data, 1) == len(entry(b"first"))


def test_options_cut_the_log(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(entry(b"old") + entry(b"new", at=ONE))
    assert shown(log, LogOptions(since=ONE)) == b"new\n"
    assert shown(log, LogOptions(limit_bytes=5)) == b"old\nn"
    assert shown(log, LogOptions(timestamps=True, tail_lines=1)) == b"2026-01-01T13:00:00.000000000Z new\n"


def test_following_shows_what_comes_and_ends_with_the_container(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(entry(b"before"))

    async def scenario() -> list[bytes]:
        ended = asyncio.Event()
        seen: list[bytes] = []
        async for chunk in read(log, LogOptions(follow=True), ended.is_set):
            seen.append(chunk)
            if len(seen) == 1:
                await write(log, b"during\nlast")
            if len(seen) == 3:
                ended.set()
        return seen

    assert asyncio.run(scenario()) == [b"before\n", b"during\n", b"last\n"]


def test_the_end_of_a_log_stands_in_for_a_termination_message(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(b"".join(entry(f"line {number}".encode()) for number in range(100)))
    text = last_output(log, max_lines=80, max_bytes=2048)
    assert text.startswith("line 20\n")
    assert text.endswith("line 99\n")
    assert len(last_output(log, max_lines=80, max_bytes=10)) == 10
    assert last_output(tmp_path / "absent.log", 80, 2048) == ""
