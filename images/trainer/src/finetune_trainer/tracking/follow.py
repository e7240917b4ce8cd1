"""Follows trainer_log.jsonl and hands new lines to a tracker, until the training has ended and everything is sent."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

from finetune_trainer.tracking.tracker import Line, Outcome, Tracker

SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_TRIES = 20.0
"""Pause after a failure: the log keeps the lines, so nothing is lost by waiting."""


class Ending:
    """How the training ended, once it has."""

    def __init__(self) -> None:
        self._known = threading.Event()
        self.outcome = Outcome.FAILED

    def tell(self, word: str) -> None:
        """Note the end; a process that was killed says nothing, which counts as stopped: its job is tried again."""
        self.outcome = Outcome(word) if word in set(Outcome) else Outcome.STOPPED
        self._known.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, at most so long; whether it has come."""
        return self._known.wait(seconds)


class LogReader:
    """Reads the whole lines that a growing log has gained."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def new_lines(self) -> list[Line]:
        """Lines since the last call."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._position)
            whole, newline, _ = file.read().rpartition(b"\n")
            self._position += len(whole) + len(newline)
            return [json.loads(line) for line in whole.splitlines()]
        return []


def follow(
    tracker: Tracker, log: LogReader, ending: Ending, opened: Callable[[str], None], say: Callable[[str], None]
) -> str:
    """Report until the end. Returns what stood in the way at the end; empty where everything was sent."""
    waiting: list[Line] = []
    is_open, trouble, ended = False, "", False
    while not ended:
        ended = ending.wait(SECONDS_BETWEEN_TRIES if trouble else SECONDS_BETWEEN_LOOKS if is_open else 0)
        waiting += log.new_lines()
        try:
            if not is_open:
                opened(tracker.open())
                is_open = True
            if waiting:
                tracker.report(waiting)
                waiting = []
            if ended:
                tracker.close(ending.outcome)
            trouble = ""
        # Clients raise what they like; none of it may end the reporting for good.
        except Exception as error:
            if not trouble:
                say(f"cannot be reported to ({_brief(error)}); training goes on, and it is tried again")
            trouble = _brief(error)
    return trouble


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
