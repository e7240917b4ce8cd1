"""How a machine without GPUs stands in for one with them: the process node of the devcluster, and `finetune run`."""

from __future__ import annotations

import os

DEVICE_VARIABLE = "FINETUNE_DEVICE"
CPU = "cpu"


def stands_in() -> bool:
    """Whether the GPUs that the job was given are none, so that everything that would run on them runs on the CPU."""
    return os.environ.get(DEVICE_VARIABLE) == CPU
