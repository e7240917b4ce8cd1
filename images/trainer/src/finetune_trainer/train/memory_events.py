"""How often the kernel has killed a process of this container for its memory.

The kubelet tells of it (OOMKilled) only where the kernel has killed the container's first process.
"""

from __future__ import annotations

from pathlib import Path

_FILES = (
    Path("/sys/fs/cgroup/memory.events"),  # cgroup v2
    Path("/sys/fs/cgroup/memory/memory.oom_control"),  # cgroup v1
)


def kills() -> int:
    """Kills since the container began; 0 where the kernel does not say."""
    for file in _FILES:
        if file.exists():
            counts = dict(line.split(maxsplit=1) for line in file.read_text().splitlines())
            return int(counts.get("oom_kill", 0))
    return 0
