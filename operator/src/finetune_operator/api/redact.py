"""Credentials are cut out of what the stages say and of what the operator passes on."""

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


def redact_known_kinds(text: str) -> str:
    """The text with everything replaced that is a credential by its form. Check sums and paths stay as they are."""
    return _SECRETS.sub(REDACTED, text)
