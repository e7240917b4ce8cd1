"""Several training processes: one a GPU of this pod, told of each other as torchrun would tell them.

Not torchrun itself: its agent kills the processes 30 s after SIGTERM, in the middle of a checkpoint, and replaces
their exit codes by its own. Restarting is the operator's work, so nothing of the agent would be used.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from finetune_operator.api.outcome import (
    REASONS,
    TERMINATION_LOG_VARIABLE,
    ExitCode,
    Figure,
    StageFailure,
    TerminationMessage,
)
from finetune_operator.api.spec import FineTuneJobSpec

SECONDS_TO_END = 20.0
"""Time that the other processes have to end by themselves once one has failed."""
SECONDS_BETWEEN_LOOKS = 0.2
DEFAULT_PORT = "29500"  # torchrun's own


def needs_ranks(spec: FineTuneJobSpec) -> bool:
    """Whether training takes more than this process. DeepSpeed wants to be told its rank even where there is one."""
    return spec.resources.gpus_per_node > 1 or spec.resources.nodes > 1 or spec.deepspeed is not None


def is_rank() -> bool:
    """Whether this process is one of several already."""
    return "LOCAL_RANK" in os.environ


def run_ranks(spec: FineTuneJobSpec, run_file: Path) -> Mapping[str, Figure]:
    """Train with one process a GPU (one on a CPU) and return the figures of the first.

    Raises StageFailure with the words of the process that failed first, and SystemExit where it was killed.
    """
    count = max(1, spec.resources.gpus_per_node)
    command = [sys.executable, "-m", "finetune_trainer.main", "train", "--run", str(run_file)]
    with tempfile.TemporaryDirectory(prefix="finetune-ranks-") as folder:
        logs = [Path(folder) / f"rank-{rank}" for rank in range(count)]
        environments = [
            {**environment, TERMINATION_LOG_VARIABLE: str(log)}
            for environment, log in zip(rank_environments(count), logs, strict=True)
        ]
        failed = run_processes([subprocess.Popen(command, env=environment) for environment in environments])
        words = _last_words(logs[failed.rank if failed else 0])
    if failed is None:
        return words.figures if words else {}
    raise _failure(failed, words)


def rank_environments(count: int) -> list[dict[str, str]]:
    """torchrun's variables for each process, from the PET_ variables that Kubeflow's runtimes and the operator set."""
    nodes = int(os.environ.get("PET_NNODES", "1"))
    node = int(os.environ.get("PET_NODE_RANK", "0"))
    common = {
        **os.environ,
        "WORLD_SIZE": str(nodes * count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": os.environ.get("PET_MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": os.environ.get("PET_MASTER_PORT") or (DEFAULT_PORT if nodes > 1 else _free_port()),
    }
    return [{**common, "RANK": str(node * count + rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Failed:
    """The process that failed first. A negative code is the signal that killed it."""

    rank: int
    code: int


def run_processes(processes: Sequence[subprocess.Popen[bytes]]) -> Failed | None:
    """Wait for all to end, passing SIGTERM on. Once one fails, the others get a while to end and are then killed."""

    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.terminate()

    before = signal.signal(signal.SIGTERM, forward)
    try:
        return _wait(dict(enumerate(processes)))
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in processes:
            process.kill()


def _wait(running: dict[int, subprocess.Popen[bytes]]) -> Failed | None:
    failed: Failed | None = None
    deadline = math.inf
    while running and time.monotonic() < deadline:
        for rank, process in list(running.items()):
            code = process.poll()
            if code is None:
                continue
            del running[rank]
            if code and failed is None:
                failed, deadline = Failed(rank, code), time.monotonic() + SECONDS_TO_END
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return failed


def _last_words(log: Path) -> TerminationMessage | None:
    return TerminationMessage.decode(log.read_text(encoding="utf-8")) if log.exists() else None


def _failure(failed: Failed, words: TerminationMessage | None) -> BaseException:
    if words is None or failed.code not in REASONS:
        # Killed from outside: the shell's code for the signal, which the operator takes for a fault of the node.
        return SystemExit(128 - failed.code if failed.code < 0 else failed.code)
    return StageFailure(ExitCode(failed.code), f"process {failed.rank}: {words.message}", **words.figures)
