"""How many processes this container can feed: its processors and its memory."""

from __future__ import annotations

import os
from pathlib import Path

CPUS_VARIABLE = "FINETUNE_CPUS"
"""Environment variable with the number of processors to use, where fewer than all shall be."""
CGROUP = Path("/sys/fs/cgroup")


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """Processors that this process may run on at once: the variable's number, else affinity and the cgroup's quota.

    A pod's CPU request is no bound: it is what the pod gets when the node is busy, and idle processors are free.
    """
    told = os.environ.get(CPUS_VARIABLE, "")
    if told.isdigit() and int(told) > 0:
        return int(told)
    present = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return present if quota is None else max(1, min(present, round(quota)))


def _quota(cgroup: Path) -> float | None:
    """Processors by the cgroup's quota, of version 2 or 1; None where there is none."""
    files = ([cgroup / "cpu.max"], [cgroup / "cpu" / "cpu.cfs_quota_us", cgroup / "cpu" / "cpu.cfs_period_us"])
    for paths in files:
        try:
            quota, period = " ".join(path.read_text() for path in paths).split()
        except (OSError, ValueError):
            continue
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    return None


def memory_limit(cgroup: Path = CGROUP) -> int | None:
    """Bytes that this container may use, by its cgroup of version 2 or 1; None where there is no limit."""
    for path in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
        try:
            limit = int(path.read_text())
        except (OSError, ValueError):
            continue
        # Version 1 says "no limit" with the largest number of pages.
        return limit if limit < 1 << 60 else None
    return None
