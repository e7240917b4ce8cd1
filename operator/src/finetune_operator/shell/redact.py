"""Secrets are cut out of everything that the operator passes on: log lines and last words of containers, and its own log."""

from __future__ import annotations

import re

from finetune_operator.api.outcome import TerminationMessage
from finetune_operator.api.redact import REDACTED, redact_known_kinds

# Keys without a prefix show as long runs of base64 or hex.
_LONG_RUN = re.compile(r"[A-Za-z0-9+/_=-]{32,}")
_ORDINARY_WORD = re.compile(r"[A-Za-z]*[0-9]{0,8}[A-Za-z]?")
_CASE_CHANGE = re.compile(r"[a-z][A-Z]")
_RANDOM_CHARACTERS = 16
# What a message calls a revision or a check sum is none of these keys, and names what has to be looked for.
_NAMED = re.compile(r"(?:(?:revision|commit|sha256)\W{1,3}(?:is )?|, expected )$")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def redact(text: str) -> str:
    """The text with everything that looks like a credential replaced."""
    return _LONG_RUN.sub(_unless_words, redact_known_kinds(text))


def redact_last_words(text: str) -> str:
    """A termination message without credentials. One of ours is taken apart first, so that it can still be read."""
    words = TerminationMessage.decode(text)
    if words is None:
        return redact(text)
    figures = {name: redact(value) if isinstance(value, str) else value for name, value in words.figures.items()}
    return TerminationMessage(words.reason, redact(words.message), figures).encode().decode()


def _unless_words(run: re.Match[str]) -> str:
    if _DIGEST.fullmatch(run.group()) and _NAMED.search(run.string[: run.start()][-24:]):
        return run.group()
    # Paths and names of models are runs too, but of words such as Qwen2, 7B or checkpoint
    words = re.split(r"[-_/+=]", run.group())
    random = sum(len(word) for word in words if not _is_ordinary(word))
    return REDACTED if random >= _RANDOM_CHARACTERS else run.group()


def _is_ordinary(word: str) -> bool:
    return _ORDINARY_WORD.fullmatch(word) is not None and len(_CASE_CHANGE.findall(word)) <= len(word) / 5
