"""Kinds of values: what LLaMA-Factory's dataclasses expect, checked before anything is made of them."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from typing import Any

from finetune_operator.cli.manifest.problems import show


class Kind(enum.Enum):
    """What a key holds, in words for a message."""

    FLAG = "true or false"
    WHOLE = "a whole number without quotes"
    NUMBER = "a number without quotes"
    TEXT = "text"
    NAMES = "names separated by commas"
    ANY = "anything"


class WrongKind(ValueError):
    """The value is of another kind; the text says what was found and expected."""


def read(kind: Kind, value: Any) -> Any:
    """The value in Python's type for the kind. Raises WrongKind."""
    if isinstance(value, str) and "${" in value:
        raise WrongKind(
            f"found {show(value)}, expected a value: LLaMA-Factory does not fill in ${{…}}; write the value itself"
        )
    taken = _READERS[kind](value)
    if taken is None:
        raise WrongKind(f"found {show(value)}, expected {kind.value}; correct it")
    return taken


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    is_whole = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return int(value) if is_whole and value == int(value) else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _text(value: Any) -> str | None:
    # YAML 1.1 reads a bare `no` as false; in these files it is always the word.
    if value is False:
        return "no"
    return value if isinstance(value, str) and value else None


def _names(value: Any) -> list[str] | None:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return [name.strip() for name in names if name.strip()] or None


_READERS: Mapping[Kind, Callable[[Any], Any]] = {
    Kind.FLAG: _flag,
    Kind.WHOLE: _whole,
    Kind.NUMBER: _number,
    Kind.TEXT: _text,
    Kind.NAMES: _names,
    Kind.ANY: lambda value: value,
}
