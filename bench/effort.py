"""Time and processor time of a piece of work, with the processes that it started and waited for."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any, TypeVar

Made = TypeVar("Made")


def measured(work: Callable[[], Made]) -> tuple[Made, dict[str, Any]]:
    """Do the work; what it made, and ``work_seconds`` and ``work_processor_seconds``."""
    before, began = processor_seconds(), time.monotonic()
    made = work()
    seconds, used = time.monotonic() - began, processor_seconds() - before
    return made, {"work_seconds": round(seconds, 2), "work_processor_seconds": round(used, 2)}


def processor_seconds() -> float:
    """Of this process, and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
