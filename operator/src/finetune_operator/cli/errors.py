"""What a command says when it cannot go on."""

from __future__ import annotations


class CommandError(Exception):
    """Ends the command: ``message`` (one line, or one line a problem) goes to stderr, ``code`` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
