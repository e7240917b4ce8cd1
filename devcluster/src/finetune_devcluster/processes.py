"""Daemons that outlive the command that starts them, known by pid and start time.

A pid alone may meanwhile belong to somebody else's process; with its start time and the boot it is unique.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster import launch
from finetune_devcluster.errors import DevclusterError

POLL_SECONDS = 0.05
KILL_SECONDS = 60
"""For the kernel to end a process, which on a busy machine takes a while to free its memory."""


@dataclass(frozen=True)
class Identity:
    """One process of one boot."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """None where no such process runs; a zombie has ended."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        if stat.rpartition(")")[2].split()[0] in "ZX":
            return None
        return cls(pid, launch.start_ticks(stat), launch.boot_id())

    @classmethod
    def read(cls, pid_file: Path) -> "Identity | None":
        """None where the file is missing; raises DevclusterError where it is not one of ours."""
        try:
            return cls(**json.loads(pid_file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise DevclusterError(
                f"{pid_file}: not a pid file of the devcluster ({error}); look with `ps` whether the process "
                "still runs, end it, and remove the file"
            ) from error

    def is_alive(self) -> bool:
        return Identity.of(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """Does nothing where the process has ended, even if its pid is in use again."""
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                if self.is_alive():
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)


def running(pid_file: Path) -> Identity | None:
    identity = Identity.read(pid_file)
    return identity if identity and identity.is_alive() else None


def start_daemon(program: Sequence[str], pid_file: Path, log_file: Path, environment: dict[str, str]) -> None:
    """Start `program` in a session of its own; its pid file stands when this returns."""
    lock = os.open(pid_file.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(lock), str(pid_file), str(log_file), *program]
        done = subprocess.run(launcher, env=environment, capture_output=True, text=True, pass_fds=[lock])
    finally:
        os.close(lock)
    if done.returncode != 0:
        raise DevclusterError(f"cannot start {program[0]}: {done.stderr.strip()}")


def await_launches(folder: Path) -> None:
    """Until each daemon that is being started has its pid file in the folder, also where who started it was killed."""
    if not folder.is_dir():
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        os.close(lock)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until the condition holds; False when the deadline passes first."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def stop(identity: Identity, grace_seconds: float) -> None:
    """SIGTERM, and SIGKILL if the process still runs after the grace period."""
    identity.signal(signal.SIGTERM)
    if not wait_until(lambda: not identity.is_alive(), grace_seconds):
        kill([identity])


def kill(identities: Iterable[Identity]) -> None:
    """SIGKILL to all; raises DevclusterError where the kernel does not let one go."""
    doomed = list(identities)
    for identity in doomed:
        identity.signal(signal.SIGKILL)
    if not wait_until(lambda: not any(i.is_alive() for i in doomed), KILL_SECONDS):
        pids = [i.pid for i in doomed if i.is_alive()]
        raise DevclusterError(
            f"processes {pids} still run {KILL_SECONDS} s after SIGKILL; see `cat /proc/PID/stack` for what they wait on"
        )
