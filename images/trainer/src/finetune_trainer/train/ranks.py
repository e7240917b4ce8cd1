"""The training processes of this pod: one a GPU, told of each other as torchrun would tell them.

Not torchrun itself: its agent kills the processes 30 s after SIGTERM, in the middle of a checkpoint, and replaces
their exit codes by its own. Restarting is the operator's work, so nothing of the agent would be used.
One process is started this way too: what watches it must not hang with it.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from finetune_operator.api.outcome import REASONS, ExitCode, Figure, StageFailure, TerminationMessage
from finetune_operator.api.run import RunConfig
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.train.memory_events import kills
from finetune_trainer.train.page_cache import read_soon
from finetune_trainer.train.rank import process_count
from finetune_trainer.train.supervise import Failed, Rank, supervise
from finetune_trainer.train.watchdog import Watchdog

DEFAULT_PORT = "29500"  # torchrun's own
_ALLOCATOR = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
"""Passes differ in size from step to step: without segments that grow, what one leaves behind does not fit the next."""


def needs_ranks(spec: FineTuneJobSpec) -> bool:
    """Whether training takes several processes. DeepSpeed wants to be told its rank even where there is one."""
    return spec.resources.gpus_per_node > 1 or spec.resources.nodes > 1 or spec.deepspeed is not None


def layout(spec: FineTuneJobSpec) -> str:
    """How this training's processes share its state."""
    count = process_count()
    processes = "1 process" if count == 1 else f"{count} processes"
    return f"{processes} with ZeRO stage {spec.deepspeed.stage}" if spec.deepspeed else processes


def run_ranks(run: RunConfig, run_file: Path) -> Mapping[str, Figure]:
    """Train with one process a GPU (one on a CPU) and return the figures of the first.

    Raises StageFailure with the words of the process that failed first, or NO_PROGRESS; SystemExit where one was killed.
    """
    several = needs_ranks(run.spec)
    count = max(1, run.spec.resources.gpus_per_node)
    environments = rank_environments(count) if several else [{**_ALLOCATOR, **os.environ}]
    command = [sys.executable, "-m", "finetune_trainer.main", "train", "--run", str(run_file)]
    killed_before = kills()
    read_soon(run.paths.base_model)
    with tempfile.TemporaryDirectory(prefix="finetune-ranks-") as folder:
        folders = [Path(folder) / f"rank-{rank}" for rank in range(len(environments))]
        ranks = [Rank.start(command, *told) for told in zip(environments, folders, strict=True)]
        failed = supervise(ranks, Watchdog(run.watchdog))
        words = _last_words(folders[failed.rank if failed else 0])
    if failed is None:
        return words.figures if words else {}
    raise failure(failed, words, several, killed_for_memory=kills() > killed_before)


def rank_environments(count: int) -> list[dict[str, str]]:
    """torchrun's variables for each process, from the PET_ variables that Kubeflow's runtimes and the operator set."""
    nodes = int(os.environ.get("PET_NNODES", "1"))
    node = int(os.environ.get("PET_NODE_RANK", "0"))
    common = {
        **_ALLOCATOR,
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


def _last_words(folder: Path) -> TerminationMessage | None:
    log = folder / "words"
    return TerminationMessage.decode(log.read_text(encoding="utf-8")) if log.exists() else None


def failure(
    failed: Failed, words: TerminationMessage | None, several: bool, *, killed_for_memory: bool
) -> BaseException:
    """What the stage raises for the process that failed first."""
    who = f"process {failed.rank}: " if several else ""
    if words is not None and failed.code in REASONS:
        return StageFailure(ExitCode(failed.code), f"{who}{words.message}", **words.figures)
    if killed_for_memory:
        return StageFailure(
            ExitCode.OUT_OF_MEMORY,
            f"{who}the kernel killed it because the container used more memory than its limit. Raise resources.memory.",
        )
    if failed.told_to_stop:
        # It had not come as far as to listen for the signal.
        return StageFailure(ExitCode.PREEMPTED, "train was told to stop while it started; nothing is lost.")
    # Killed from outside: the shell's code for the signal, which the operator takes for a fault of the node.
    return SystemExit(128 - failed.code if failed.code < 0 else failed.code)
