"""A child process whose lines are passed on while it runs, and that is told when this process is told to stop."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

# Looked up before a child is forked, where nothing may be loaded any more.
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended."""

    code: int
    """Exit code; 128 + N where signal N ended it, as shells report it."""
    killed_by: signal.Signals | None
    """The signal that ended the child."""
    stopped_by: signal.Signals | None
    """The signal that this process got and passed on."""


class Stopper:
    """Handler of the stop signals: the first asks the child to save and end, the second kills it."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._child: subprocess.Popen[str] | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        again, self.received = self.received, signal.Signals(number)
        if self._child and again:
            kill_group(self._child)
        elif self._child:
            # Images listen to SIGTERM, as the kubelet sends it.
            self._child.terminate()

    def attach(self, child: subprocess.Popen[str]) -> None:
        """Name the child; it is stopped at once where the signal came before it."""
        self._child = child
        if self.received:
            child.terminate()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals while the block runs. Only the main thread may do that."""
        previous = {number: signal.signal(number, self) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def run_child(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    show: Callable[[str], None],
    keep_open: Sequence[int] = (),
) -> Ended:
    """Run to the end, handing every line of output to ``show``; file descriptors to ``keep_open`` are the child's too."""
    stopper = Stopper()
    with stopper.installed():
        child = start(arguments, environment, keep_open)
        stopper.attach(child)
        reader = threading.Thread(target=_pass_on, args=(child, show))
        reader.start()
        try:
            code = child.wait()
        finally:
            # A worker that outlives its parent would keep the pipe open, and a GPU busy.
            kill_group(child)
            reader.join()
            if child.stdout:
                child.stdout.close()
    killed_by = signal.Signals(-code) if code < 0 else None
    return Ended(128 + killed_by if killed_by else code, killed_by, stopper.received)


def start(arguments: Sequence[str], environment: Mapping[str, str], keep_open: Sequence[int]) -> subprocess.Popen[str]:
    """Start a child in a process group of its own, so that a terminal's Ctrl-C reaches it only through us.

    Should this process be killed, the child is told to save and end: nobody would see what it does any more.
    """
    return subprocess.Popen(
        arguments,
        env=environment_with(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
        pass_fds=keep_open,
        preexec_fn=_end_with_parent,
    )


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def environment_with(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and more."""
    return {**os.environ, **more}


def kill_group(child: subprocess.Popen[Any]) -> None:
    """Kill a child and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _pass_on(child: subprocess.Popen[str], show: Callable[[str], None]) -> None:
    for line in child.stdout or ():
        # Nobody reads any more (`finetune run … | head`): the stage goes on, its output is dropped.
        with contextlib.suppress(BrokenPipeError):
            show(line.rstrip("\n"))
