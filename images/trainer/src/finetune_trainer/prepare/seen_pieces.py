"""Token ids of plain ASCII text from ids of its pieces, most of which were seen before.

A byte-level BPE tokenizer (arXiv 1508.07909, GPT-2) splits a text by a pattern and merges each piece by itself: a piece has the
same ids wherever it stands. The library that does both looks at every character several times; splitting by Python's own
regular expressions and looking pieces up takes a quarter of the time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import chain
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_PATTERNS = frozenset({_QWEN2, _LLAMA3})
"""Those that were compared with the library's on ASCII text: Qwen2 to 3, and Llama 3."""
_PLAIN = re.compile(r"[\t\n\r\x20-\x7e]*")
"""What both engines of regular expressions take for the same: they differ on other control characters, and on Unicode."""
_MOST = 200_000
"""Pieces that are remembered: some 40 MB."""
_LONGEST = 64
"""Characters of a piece that is remembered; longer ones hardly come again."""


class SeenPieces:
    """A tokenizer's memory."""

    def __init__(self, backend: Tokenizer, pattern: str) -> None:
        """``pattern`` is one of those that are known."""
        self._model = backend.model
        self._bytes = ByteLevel(add_prefix_space=False, use_regex=False)
        self._split = re.compile(_in_ascii(pattern), re.ASCII)
        added = backend.get_added_tokens_decoder()
        self._special = {token.content: number for number, token in added.items() if _stands_alone(token)}
        self._border = re.compile(f"({_any_of(self._special)})")
        self._odd = re.compile(_any_of([token.content for token in added.values() if not _stands_alone(token)]))
        self._known: dict[str, list[int]] = {}

    @classmethod
    def of(cls, backend: Tokenizer) -> SeenPieces | None:
        """For a tokenizer that neither cuts nor pads; None where it does not work by pieces that are known to be split alike."""
        plain = type(backend.model) is BPE and not backend.model.dropout
        normalizer = backend.normalizer
        if not plain or not (normalizer is None or isinstance(normalizer, NFC)):
            return None
        pattern = _pattern(backend)
        return cls(backend, pattern) if pattern in _PATTERNS else None

    def ids(self, text: str) -> list[int] | None:
        """The text's ids without special ones; None where the tokenizer itself has to be asked."""
        # NFC leaves ASCII alone.
        if not text.isascii() or not _PLAIN.fullmatch(text) or self._odd.search(text):
            return None
        found: list[int] = []
        for number, part in enumerate(self._border.split(text)):
            found += [self._special[part]] if number % 2 else self._between(part)
        return found

    def _between(self, text: str) -> list[int]:
        """Ids of text without special tokens."""
        pieces = self._split.findall(text)
        try:
            return list(chain.from_iterable(map(self._known.__getitem__, pieces)))
        except KeyError:
            return list(chain.from_iterable(map(self._looked_up, pieces)))

    def _looked_up(self, piece: str) -> list[int]:
        found = self._known.get(piece)
        if found is None:
            spelled = "".join(part for part, _ in self._bytes.pre_tokenize_str(piece))
            found = [token.id for token in self._model.tokenize(spelled)]
            self._remember(piece, found)
        return found

    def _remember(self, piece: str, found: list[int]) -> None:
        if len(self._known) >= _MOST:
            self._known.clear()
        if len(piece) <= _LONGEST:
            self._known[piece] = found


def _pattern(backend: Tokenizer) -> str | None:
    """The pattern that texts are split by, before bytes are spelled as letters; None where more or something else is done."""
    if backend.pre_tokenizer is None:
        return None
    state: dict[str, Any] = json.loads(backend.pre_tokenizer.__getstate__())
    match state.get("pretokenizers"):
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            return pattern
    return None


def _in_ascii(pattern: str) -> str:
    """One of the known patterns for Python's engine, which knows no classes of Unicode; together they stand in brackets."""
    together = pattern.replace(r"\p{L}\p{N}", "A-Za-z0-9")
    return together.replace(r"\p{L}", "[A-Za-z]").replace(r"\p{N}", "[0-9]")


def _stands_alone(token: AddedToken) -> bool:
    """Whether an added token is found as it is written, and takes nothing of what stands around it."""
    return not (token.normalized or token.lstrip or token.rstrip or token.single_word)


def _any_of(contents: Iterable[str]) -> str:
    """A pattern for the longest of these that stands at a place, as the library finds them; for nothing if there are none."""
    return "|".join(map(re.escape, sorted(contents, key=len, reverse=True))) or r"(?!)"
