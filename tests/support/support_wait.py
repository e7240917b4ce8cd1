"""Waiting for a condition instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

POLL_SECONDS = 0.05


def eventually(condition: Callable[[], Value], seconds: float = 60, message: str = "") -> Value:
    """The first true value of the condition; an AssertionError with its last value after that many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"{message or 'the condition'}: not within {seconds} s; last value: {value!r}")
        time.sleep(POLL_SECONDS)
    return value
