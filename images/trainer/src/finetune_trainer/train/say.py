"""Lines for people. That nobody can read them must not end a training."""

from __future__ import annotations

import os
import sys


def say(line: str) -> None:
    """Print a line; into nothing once the reader has gone or the disk of the log is full."""
    try:
        print(line, flush=True)
    except OSError:
        # Else the interpreter would try again when it ends, and replace the exit code.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
