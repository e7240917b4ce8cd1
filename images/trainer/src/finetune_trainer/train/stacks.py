"""Stacks of all threads of a process that hangs, asked for by a signal and written without the interpreter's help."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path

FILE_VARIABLE = "FINETUNE_STACKS"
"""File that a training process writes its stacks to."""
SIGNAL = signal.SIGUSR1
SECONDS_TO_WRITE = 5.0
_SECONDS_BETWEEN_LOOKS = 0.1
_PACKAGE = "finetune_trainer"
_FRAME = re.compile(r'  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)')


def answer_with_stacks() -> None:
    """From now on, the signal has all threads' stacks written, even while C code holds the interpreter's lock."""
    faulthandler.enable()
    path = os.environ.get(FILE_VARIABLE)
    if path:
        # Left open on purpose: the handler needs its file for as long as the process lives.
        faulthandler.register(SIGNAL, file=open(path, "w"), all_threads=True)  # noqa: SIM115


def ask_for_stacks(pids: Sequence[int], files: Sequence[Path]) -> list[str]:
    """The stacks of each process; of one that does not answer, the state that the kernel has it in."""
    for pid in pids:
        os.kill(pid, SIGNAL)
    deadline = time.monotonic() + SECONDS_TO_WRITE
    texts = [""] * len(files)
    while time.monotonic() < deadline:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        before, texts = texts, [_read(file) for file in files]
        # Written in one go, thread by thread: what stands still and is not empty is whole.
        if all(texts) and texts == before:
            break
    return [text or _state(pid) for pid, text in zip(pids, texts, strict=True)]


def place(stacks: str) -> str:
    """Where the main thread is, which faulthandler writes last: its innermost frame, and the innermost of this project.

    Empty where there is none.
    """
    frames = list(_FRAME.finditer(stacks.rpartition("(most recent call first):")[2]))
    own = next((frame for frame in frames if _PACKAGE in frame["file"]), None)
    told = dict.fromkeys([*frames[:1], *([own] if own else [])])
    return ", called from ".join(f"{frame['file']}:{frame['line']} in {frame['function']}" for frame in told)


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _state(pid: int) -> str:
    """What /proc says: a process that was stopped, or that waits for a disk, cannot write its stacks."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        waits_in = Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return "it has ended\n"
    state = next((line for line in status.splitlines() if line.startswith("State:")), "State: unknown")
    return f"it cannot answer; {state.replace(chr(9), ' ')}; waits in the kernel's {waits_in or 'unknown'}\n"
