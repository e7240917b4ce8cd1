"""Secrets are cut out of everything that the operator passes on: log lines of containers, and its own log."""

from __future__ import annotations

import re

REDACTED = "[redacted]"

_SECRETS = re.compile(
    r"(?i:bearer)\s+[A-Za-z0-9._~+/=-]{8,}"
    r"|\bhf_[A-Za-z0-9]{8,}"  # Hugging Face
    r"|\bsk-[A-Za-z0-9_-]{8,}"  # OpenAI and its kin
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{12,}"  # AWS
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}"  # GitHub
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"  # JSON web tokens
    r"|(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"  # name:password@ in a URL
)
# Keys without a prefix show as long runs of base64 or hex.
_LONG_RUN = re.compile(r"[A-Za-z0-9+/_=-]{32,}")
_ORDINARY_WORD = re.compile(r"[A-Za-z]*[0-9]{0,8}[A-Za-z]?")
_CASE_CHANGE = re.compile(r"[a-z][A-Z]")
_RANDOM_CHARACTERS = 16


def redact(text: str) -> str:
    """The text with everything that looks like a credential replaced."""
    return _LONG_RUN.sub(_unless_words, _SECRETS.sub(REDACTED, text))


def _unless_words(run: re.Match[str]) -> str:
    # Paths and names of models are runs too, but of words such as Qwen2, 7B or checkpoint
    words = re.split(r"[-_/+=]", run.group())
    random = sum(len(word) for word in words if not _is_ordinary(word))
    return REDACTED if random >= _RANDOM_CHARACTERS else run.group()


def _is_ordinary(word: str) -> bool:
    return _ORDINARY_WORD.fullmatch(word) is not None and len(_CASE_CHANGE.findall(word)) <= len(word) / 5
