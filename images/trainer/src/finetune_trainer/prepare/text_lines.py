"""Lines of a text file as text, or why they are none: encoding, NUL, length, half characters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from io import BufferedReader
from typing import Any

LONGEST_ROW = 16 << 20
"""Bytes of the longest row. More is no conversation, and would have to be held in memory whole."""
TOO_LONG = f"is longer than {LONGEST_ROW >> 20} MiB, expected one conversation; split it, or remove it"
DEEPEST = 100
"""Levels of lists and objects in a row. A conversation has four; Python's own limit is met at some hundreds."""
NOT_READABLE = f"is nested deeper than {DEEPEST} levels, or has a number of thousands of digits, expected a conversation; remove the row"
BOM = b"\xef\xbb\xbf"


class BadTextError(Exception):
    """Bytes that are no text; the message says at which byte of the file."""


def not_utf8(offset: int, found: int) -> str:
    """What to say of a byte that does not belong into UTF-8; ``offset`` counts from the file's begin."""
    return f"is not UTF-8 at byte {offset} of the file (found 0x{found:02x}); save the file as UTF-8"


def nul(offset: int) -> str:
    """What to say of a NUL byte."""
    return f"holds a NUL byte at byte {offset} of the file, expected text; save the file as UTF-8, or copy it again"


def lines(stream: BufferedReader) -> Iterator[tuple[int, int, bytes | None]]:
    """Number (from 1), byte offset and bytes of every line, without byte order mark; None for a line that is too long."""
    number = offset = 0
    while line := stream.readline(LONGEST_ROW + 1):
        number += 1
        size = len(line)
        if size > LONGEST_ROW and not line.endswith(b"\n"):
            size += _rest_of_line(stream)
            yield number, offset, None
        elif number == 1 and line.startswith(BOM):
            yield number, len(BOM), line.removeprefix(BOM)
        else:
            yield number, offset, line
        offset += size


def _rest_of_line(stream: BufferedReader) -> int:
    size = 0
    while rest := stream.readline(LONGEST_ROW):
        size += len(rest)
        if rest.endswith(b"\n"):
            break
    return size


def decoded(line: bytes, offset: int) -> str:
    """The text of a line that begins at byte ``offset``. Raises BadTextError."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadTextError(not_utf8(offset + error.start, line[error.start])) from error
    if (at := line.find(b"\0")) >= 0:
        raise BadTextError(nul(offset + at))
    return text


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_HALF = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def value_fault(value: Any, text: str, begin: int = 0, end: int | None = None) -> str | None:
    """What is wrong with a row that is well-formed JSON, the text from ``begin`` to ``end``; None where nothing is."""
    end = len(text) if end is None else end
    return _too_deep(value, text, begin, end) or _half_character(value, text, begin, end)


def _too_deep(value: Any, text: str, begin: int, end: int) -> str | None:
    # Most rows have fewer brackets than the deepest may have, and need not be walked through.
    if text.count("[", begin, end) + text.count("{", begin, end) <= DEEPEST:
        return None
    level = [value]
    for _ in range(DEEPEST):
        level = [child for item in level for child in _children(item)]
        if not level:
            return None
    return NOT_READABLE


def _children(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()


def _half_character(value: Any, text: str, begin: int, end: int) -> str | None:
    if _SURROGATE.search(text, begin, end) is None:
        return None
    try:
        # A backslash may itself be escaped, so that the pattern alone does not tell.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        half = _HALF.search(text, begin, end)
        found = f" ({half[0]})" if half else ""
        return f"holds half of a surrogate pair{found}, expected whole characters; write the character itself"
    return None
