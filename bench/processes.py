"""Runs programs for the bench."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
_TAIL = 1500


class BenchError(RuntimeError):
    """A program that is measured failed; the message ends with the end of its output."""

    def __init__(self, what: str, output: str) -> None:
        super().__init__(f"{what}: {output[-_TAIL:]}".replace(str(HERE.parent), "."))


def own_environment(**variables: str) -> dict[str, str]:
    """For a program that imports this project's packages as this process does."""
    paths = os.pathsep.join([str(HERE), *sys.path])
    return {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", **variables}


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return its output. Raises BenchError where it fails."""
    done = subprocess.run(
        command, env=environment or own_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise BenchError(f"{' '.join(command[1:4])} ended with {done.returncode}", done.stdout)
    return done.stdout
