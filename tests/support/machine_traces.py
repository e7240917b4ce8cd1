"""What a cluster with a real node could leave on the machine, to be compared before and after."""

from __future__ import annotations

from pathlib import Path

from finetune_devcluster.kubelet.machine import SYSCTLS
from finetune_devcluster.layout import Layout

_FOLDERS = (
    "/run/containerd/s",
    "/run/containerd/runc",
    "/var/lib/cni/results",
    "/var/lib/cni/networks",
    "/var/lib/kubelet",
    "/var/lib/containerd",
)


def traces(layout: Layout) -> dict[str, list[str]]:
    """By kind, in words that mean the same before and after."""
    return {
        "settings": [f"{name}={_text(Path('/proc/sys') / name)}" for name in SYSCTLS],
        "folders": [f"{path}: {_entries(Path(path))}" for path in _FOLDERS],
        "control groups": sorted(map(str, Path("/sys/fs/cgroup").glob("**/k8s.io/*"))),
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(layout.state) in line],
        "processes": _processes(str(layout.state)),
        "network": sorted(map(str, Path("/run/netns").glob(f"ftc-{layout.name}"))),
        "files": sorted(
            map(str, [*Path("/run").glob(f"finetune-devcluster.{layout.name}.*"), *layout.home.glob(layout.name)])
        ),
    }


def _text(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""


def _entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def _processes(state: str) -> list[str]:
    """Processes whose command line names the cluster's folder: its daemons and the containers' shims."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue  # ended while it was looked at
        if state in command:
            found.append(command.replace("\0", " "))
    return found
