"""Time as Kubernetes writes it."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(moment: datetime | None = None) -> str:
    """Whole seconds, as in the status of a pod."""
    return (moment or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(moment: datetime | None = None) -> str:
    """Microseconds, as in the renewTime of a Lease."""
    return (moment or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def rfc3339_nano(moment: datetime | None = None) -> str:
    """Nanoseconds, as in a container's log file."""
    return (moment or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def parse(text: str) -> datetime:
    # fromisoformat takes at most six digits of a second.
    if "." in text:
        whole, _, fraction = text.rstrip("Z").partition(".")
        text = f"{whole}.{fraction[:6]}Z"
    return datetime.fromisoformat(text)
