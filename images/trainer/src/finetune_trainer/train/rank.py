"""A training process as its launcher starts it: it dies with the launcher, and can be asked where it hangs."""

from __future__ import annotations

import ctypes
import os
import signal

from finetune_trainer.train.stacks import answer_with_stacks

LAUNCHER_VARIABLE = "FINETUNE_LAUNCHER"
"""Process id of the launcher; set in the processes that it starts."""
PIPE_VARIABLE = "FINETUNE_HEARTBEAT"
"""Number of the file descriptor that the launcher hears this process through."""
BEGAN_VARIABLE = "FINETUNE_BEGAN"
"""When the launcher began, in seconds of the monotonic clock."""
_PR_SET_PDEATHSIG = 1


def is_rank() -> bool:
    """Whether this process is to train itself: the launcher has started it, or a launcher such as torchrun."""
    return LAUNCHER_VARIABLE in os.environ or is_one_of_several()


def is_one_of_several() -> bool:
    """Whether this process trains together with others, or as if it did."""
    return "LOCAL_RANK" in os.environ


def is_only_rank() -> bool:
    """Whether the launcher has started this process and no other."""
    return LAUNCHER_VARIABLE in os.environ and not is_one_of_several()


def process_count() -> int:
    """Processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def begin_rank() -> None:
    """To be called before anything that could hang."""
    answer_with_stacks()
    launcher = os.environ.get(LAUNCHER_VARIABLE)
    if launcher is not None:
        # Else a trainer whose launcher was killed would write checkpoints beside the next one.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(launcher):
            os.kill(os.getpid(), signal.SIGKILL)
