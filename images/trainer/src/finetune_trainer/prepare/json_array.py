"""Rows of one JSON array, read as a stream: memory stays flat whatever the file's size.

Not with a streaming library: theirs cannot say at which line and column a fault stands, and are slower than the standard
library's parser element by element.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from io import BufferedReader
from typing import Any

from finetune_trainer.prepare.rows import Place, Row
from finetune_trainer.prepare.text_lines import LONGEST_ROW, NOT_READABLE, TOO_LONG, not_utf8, nul, value_fault

_CHUNK = 1 << 20
_PARSE = json.JSONDecoder().raw_decode
_BLANKS = re.compile(r"[ \t\r\n]*")


def array_rows(stream: BufferedReader, shown_as: str) -> Iterator[Row]:
    """A row an element. After a fault nothing further can be told apart, so that reading ends there."""
    text = _Text(stream)
    try:
        for number, (value, problem) in enumerate(_elements(text)):
            yield Row(Place(shown_as, number, is_line=False), None if problem else value, problem)
    except _Fault as fault:
        yield Row(Place(shown_as, fault.line), problem=str(fault))


class _Fault(Exception):
    """The text is no array from ``line`` on."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def _elements(text: _Text) -> Iterator[tuple[Any, str | None]]:
    """Elements, each with what is wrong with its text, if anything is. Raises _Fault."""
    text.take("[")
    if text.peek() != "]":
        yield text.value()
        while text.peek() != "]":
            text.take(",")
            yield text.value()
    text.take("]")
    if text.peek():
        raise text.fault("more text after the end of the array")


class _Text:
    """What was read of a stream and not yet taken, and where in the file that begins."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._held = ""
        self._at = 0
        """Index in ``_held`` of what is to be taken next."""
        self._bytes_read = 0
        self._line, self._column = 1, 1
        """Place of the first character of ``_held``."""
        self._ended = False
        self._unreadable: str | None = None
        """Why the text ended before the file did."""

    def peek(self) -> str:
        """The next character that is not blank; blanks are passed over. Empty at the end."""
        while True:
            self._at = _BLANKS.match(self._held, self._at).end()  # type: ignore[union-attr]  # matches anywhere
            if self._at < len(self._held) or not self._read():
                return self._held[self._at : self._at + 1]

    def take(self, character: str) -> None:
        """Pass over a character. Raises _Fault where another one stands."""
        found = self.peek()
        if found != character:
            raise self.fault(f"found {found!r}, expected {character!r}" if found else "the array does not end")
        self._at += 1

    def value(self) -> tuple[Any, str | None]:
        """The next value, and what is wrong with its text. Raises _Fault."""
        self.peek()
        while True:
            size = len(self._held) - self._at
            try:
                value, end = _PARSE(self._held, self._at)
            except json.JSONDecodeError as error:
                # Any error may come from the value's end not being read yet.
                if size > LONGEST_ROW:
                    raise self.refusal(TOO_LONG) from error
                if not self._read(size):
                    raise self.fault(error.msg, error.pos) from error
                continue
            except (RecursionError, ValueError) as error:
                raise self.refusal(NOT_READABLE) from error
            # A number that ends where the text does may go on: 1 may become 12.
            if end == len(self._held) and self._read(size):
                continue
            problem = value_fault(value, self._held, self._at, end)
            self._at = end
            return value, problem

    def fault(self, message: str, at: int | None = None) -> _Fault:
        """A fault at an index of what is held, or at the next character."""
        if self._unreadable is not None:
            return _Fault(self._place(len(self._held))[0], self._unreadable)
        line, column = self._place(self._at if at is None else at)
        return _Fault(line, f"malformed JSON at column {column} ({message}); correct it, nothing after it was read")

    def refusal(self, message: str) -> _Fault:
        """A fault of the whole next value."""
        return _Fault(self._place(self._at)[0], f"{message}; nothing after it was read")

    def _place(self, index: int) -> tuple[int, int]:
        newlines = self._held.count("\n", 0, index)
        if not newlines:
            return self._line, self._column + index
        return self._line + newlines, index - self._held.rfind("\n", 0, index)

    def _read(self, wanted: int = 0) -> bool:
        """Read on, as much again as a value already has, so that a long one is not parsed over and over.

        False at the end, where all indices stay what they were.
        """
        text = ""
        while not text and not self._ended:
            chunk = self._stream.read(max(_CHUNK, wanted))
            text = self._decode(chunk)
            self._bytes_read += len(chunk)
            self._ended = not chunk or self._unreadable is not None
        if text:
            self._line, self._column = self._place(self._at)
            self._held, self._at = self._held[self._at :] + text, 0
        return bool(text)

    def _decode(self, chunk: bytes) -> str:
        waiting = len(self._decoder.getstate()[0])
        begin = self._bytes_read - waiting
        try:
            text = self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            self._unreadable = not_utf8(begin + error.start, error.object[error.start])
            text = error.object[: error.start].decode("utf-8-sig")
        if (at := text.find("\0")) >= 0:
            self._unreadable = nul(begin + len(text[:at].encode()))
            text = text[:at]
        return text
