"""What a dataset file is, told by how it begins rather than by its name: suffixes are often swapped or left out."""

from __future__ import annotations

import enum
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from finetune_trainer.prepare.text_lines import BOM

_PEEKED = 64 << 10


class Kind(enum.Enum):
    """Kinds of files that rows are read from."""

    LINES = "JSON Lines"
    ARRAY = "a JSON array"
    CSV = "CSV"
    PARQUET = "Parquet"
    ARROW_FILE = "an Arrow file"
    ARROW_STREAM = "an Arrow stream"


class UnreadableError(Exception):
    """A file that is none of them. The message says what was found and what to do."""


_BINARY = ((b"PAR1", Kind.PARQUET), (b"ARROW1", Kind.ARROW_FILE), (b"\xff\xff\xff\xff", Kind.ARROW_STREAM))
_FOREIGN = (
    (b"PK\x03\x04", "is a zip archive or an Excel workbook", "unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "is an Excel workbook", "save the sheet as CSV"),
    (b"%PDF", "is a PDF", "name the file with the rows"),
    (b"BZh", "is compressed with bzip2", "compress it with gzip or zstd"),
    (b"\xfd7zXZ", "is compressed with xz", "compress it with gzip or zstd"),
    (b"\xff\xfe", "is UTF-16 at byte 0", "save the file as UTF-8"),
    (b"\xfe\xff", "is UTF-16 at byte 0", "save the file as UTF-8"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself", "fetch it with git lfs pull"),
    *(
        (bytes((0x80, protocol)), "is a Python pickle, which is never read", "save the rows as JSON Lines")
        for protocol in range(2, 6)
    ),
    (b"\x93NUMPY", "is a NumPy array, which is never read", "save the rows as JSON Lines"),
)
_EXPECTED = "expected JSON Lines, a JSON array, CSV, Parquet or Arrow"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


_COMPRESSED = (".gz", ".zst")
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".arrow")
_NOT_ROWS = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
"""What the datasets library and LLaMA-Factory leave beside the rows."""


def holds_rows(name: str) -> bool:
    """Whether a file found in a folder is one to read rows from, by its name; upper case and .gz or .zst do not matter."""
    file = PurePath(name).name.lower()
    return plain_suffix(file) in SUFFIXES and file not in _NOT_ROWS and not file.startswith((".", "_"))


def plain_suffix(name: str) -> str:
    """The suffix in lower case, without that of the compression."""
    path = PurePath(name.lower())
    return (path.with_suffix("") if path.suffix in _COMPRESSED else path).suffix


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader[Any]]:
    """The file's content as a stream, decompressed where it begins as gzip or zstd does."""
    # Opened in two steps for the type checker, which does not know what kind of file a buffer size gives.
    with io.BufferedReader(io.FileIO(path), _PEEKED) as file:
        head = file.peek(4)[:4]
        if head.startswith(_GZIP):
            with gzip.open(file) as content:
                yield io.BufferedReader(content, _PEEKED)
        elif head == _ZSTD:
            import pyarrow  # type: ignore[import-untyped]

            yield io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(file), "zstd"), _PEEKED)
        else:
            yield file


def kind_of(stream: io.BufferedReader, name: str) -> Kind:
    """What the stream holds; nothing of it is taken. Raises UnreadableError."""
    head, suffix = stream.peek(_PEEKED), plain_suffix(name)
    for magic, kind in _BINARY:
        if head.startswith(magic):
            return kind
    for magic, found, advice in _FOREIGN:
        if head.startswith(magic):
            raise UnreadableError(f"{found}, {_EXPECTED}; {advice}")
    if suffix in (".parquet", ".arrow"):
        found = f"begins with {head[:8]!r}" if head else "is empty"
        raise UnreadableError(f"{found}, expected a whole {suffix[1:].capitalize()} file; copy it again, or rename it")
    if (at := head[:4].find(b"\0")) >= 0:
        raise UnreadableError(f"holds a NUL byte at byte {at}, as UTF-16 does, {_EXPECTED}; save the file as UTF-8")
    return _text_kind(head.removeprefix(BOM).lstrip(), suffix)


def _text_kind(text: bytes, suffix: str) -> Kind:
    first, second = [*text.split(b"\n", 2), b"", b""][:2]
    begins_as_json = text.startswith((b"{", b"["))
    if suffix == ".csv":
        if begins_as_json:
            raise UnreadableError("is named .csv and begins as JSON does, expected a header; name it .jsonl or .json")
        return Kind.CSV
    if text.startswith(b"["):
        return Kind.ARRAY
    if text.startswith(b"<"):
        raise UnreadableError(
            f"is HTML or XML, such as a page that says that a download failed, {_EXPECTED}; fetch it again"
        )
    if first.strip() == b"{" and not second.lstrip().startswith(b"{"):
        raise UnreadableError(
            "is one JSON object over several lines, expected one object a line, or an array; write each row on one line, "
            "or put [ and ] around the objects and a comma between them"
        )
    if text and not begins_as_json and b"," in first and not second.lstrip().startswith((b"{", b"[")):
        raise UnreadableError(
            f"looks like CSV (begins with {first[:40].decode(errors='replace').strip()!r}); name it .csv"
        )
    return Kind.LINES


def oddities(path: Path) -> list[str]:
    """What is unusual about a text file and does no harm: a byte order mark, Windows line ends."""
    with opened(path) as stream:
        head = stream.peek(_PEEKED)
    if head.startswith(tuple(magic for magic, _ in _BINARY)):
        return []
    found = ["begins with a byte order mark"] if head.startswith(BOM) else []
    return [*found, "has Windows line ends"] if b"\r\n" in head else found
