"""The first GPU's memory as the driver counts it: how much is in use at most, and how to leave less of it free."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import machine

MILLISECONDS_BETWEEN_LOOKS = 200
# What is taken is a process of its own's: to the one that is measured, the card is full but for what was left.
_TAKE = """
import sys, torch
free = torch.cuda.mem_get_info()[0]
taken = torch.empty(max(0, free - int(float(sys.argv[1]) * 2**30)), dtype=torch.uint8, device="cuda")
print("taken", flush=True)
sys.stdin.read()
"""


@contextmanager
def watched() -> Iterator[dict[str, Any]]:
    """While the block runs, ``device_peak_gib`` of GPU 0 beyond what was in use before it; nothing where there is no GPU."""
    found: dict[str, Any] = {}
    before = machine.card_field("memory.used")
    if before is None:
        yield found
        return
    command = ["nvidia-smi", "-i", "0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    with tempfile.TemporaryFile("w+") as output:
        looking = subprocess.Popen([*command, "-lms", str(MILLISECONDS_BETWEEN_LOOKS)], stdout=output)
        try:
            yield found
        finally:
            looking.terminate()
            looking.wait()
        output.seek(0)
        used = [int(line) for line in output.read().split() if line.isdigit()]
    # The least of all looks, as the process before may still have had its memory when this began.
    found["device_peak_gib"] = round((max(used, default=0) - min([int(before), *used])) / 1024, 2)


@contextmanager
def only(gib: float | None) -> Iterator[None]:
    """Leave so much of GPU 0's memory free while the block runs; all of it for None."""
    if gib is None or machine.card_field("name") is None:
        yield
        return
    command = [sys.executable, "-c", _TAKE, str(gib)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as taking:
        try:
            if taking.stdout is None or taking.stdout.readline() != "taken\n":
                raise RuntimeError(f"no process could leave {gib} GiB of the GPU's memory free")
            yield
        finally:
            taking.kill()
