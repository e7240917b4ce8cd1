"""Lines for the person who waits; standard output is kept for the result."""

import sys


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
