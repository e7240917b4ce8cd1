"""Runs a program and measures it with all the processes that it starts: time, processor time and memory."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from effort import processor_seconds
from processes import BenchError

SECONDS_BETWEEN_LOOKS = 0.3


def measured(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Seconds, processor seconds, most resident GiB (shared pages counted once) and output. Raises BenchError where it fails."""
    before, began = processor_seconds(), time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(_resident(each) for each in _tree(process.pid)))
            time.sleep(SECONDS_BETWEEN_LOOKS)
        seconds = time.monotonic() - began
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise BenchError(f"{command[1]} ended with {process.returncode}", text)
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor_seconds() - before, 1),
        "peak_gib": round(peak / 2**20, 3),
        "output": text,
    }


def _tree(process: int) -> Iterator[int]:
    yield process
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = file.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _tree(int(child))


def _resident(process: int) -> int:
    """KiB; 0 for one that has ended."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
