"""Processes of the node: how they are started, recorded, found again after a restart, and killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)


class CommandError(Exception):
    """A helper program failed; the message has its argv and what it printed."""


def program(name: str) -> str:
    """Absolute path of a system program.

    Raises CommandError when the host lacks it.
    """
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:" + os.environ.get("PATH", ""))
    if found is None:
        raise CommandError(f"{name}: not found on PATH; the process node needs util-linux and iproute2")
    return found


def dies_with_parent(*argv: str) -> list[str]:
    """The same command, killed by the kernel when this process ends for whatever reason."""
    return [program("setpriv"), "--pdeathsig", "KILL", *argv]


async def run_command(*argv: str, stdin: str = "") -> str:
    """Standard output of the command.

    Raises CommandError when it exits non-zero.
    """
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate(stdin.encode())
    text = output.decode(errors="replace")
    if process.returncode != 0:
        raise CommandError(f"{' '.join(argv)}: exit {process.returncode}: {text.strip()} (input: {stdin.strip()!r})")
    return text


def start_time(pid: int) -> int | None:
    """Clock ticks since boot at which the process started, or None when there is none or it has ended.

    Field 22 of /proc/PID/stat (proc_pid_stat(5)); with the pid it names one process for ever.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def descendants(pid: int) -> list[int]:
    """All living processes below `pid`, parents before children."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*children, *(below for child in children for below in descendants(child))]


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@dataclass(frozen=True)
class ProcessRecord:
    pid: int
    started: int
    what: str

    def is_alive(self) -> bool:
        return start_time(self.pid) == self.started


def records_in(folder: Path) -> list[ProcessRecord]:
    """Those of a registry, also while the node writes and removes them."""
    found = []
    for file in sorted(folder.glob("*.json")):
        # One that is gone by now was of a process that has ended; a node that was killed may have left any content.
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            entry = json.loads(file.read_text())
            found.append(ProcessRecord(int(entry["pid"]), int(entry["started"]), str(entry["what"])))
    return found


class ProcessRegistry:
    """One file for each process that must not outlive the node, so that the node's next life can kill it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, pid: int, what: str) -> None:
        started = start_time(pid)
        if started is not None:
            # Others read it meanwhile. Not flushed to the disk: a machine that stops ends the process, too.
            partial = self._file(pid).with_suffix(".partial")
            partial.write_text(json.dumps({"pid": pid, "started": started, "what": what}))
            partial.rename(self._file(pid))

    def remove(self, pid: int) -> None:
        self._file(pid).unlink(missing_ok=True)

    def kill_leftovers(self) -> list[ProcessRecord]:
        """Kills what an earlier life of the node left running; returns what was found alive."""
        alive = [record for record in records_in(self._folder) if record.is_alive()]
        for record in alive:
            logger.warning("killing process %d of an earlier life: %s", record.pid, record.what)
            kill(record.pid)
        for file in self._folder.iterdir():
            file.unlink()
        return alive

    def _file(self, pid: int) -> Path:
        return self._folder / f"{pid}.json"
