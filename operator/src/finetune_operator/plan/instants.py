"""Instants as the API writes them: RFC 3339 in UTC, whole seconds."""

from __future__ import annotations

import datetime as dt


def to_text(instant: dt.datetime) -> str:
    """Such as 2026-11-21T23:29:00Z."""
    return instant.astimezone(dt.UTC).replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_text(text: str) -> dt.datetime:
    """The instant that the API wrote. Raises ValueError on anything but RFC 3339."""
    return dt.datetime.fromisoformat(text)


def seconds_until(due: dt.datetime, now: dt.datetime) -> float:
    """Seconds from now, never negative."""
    return max(0.0, (due - now).total_seconds())
