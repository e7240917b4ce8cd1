"""Which of containerd's snapshotters this machine and file system can bear."""

import functools
import subprocess
import tempfile
from pathlib import Path

from finetune_devcluster.kubelet.place import Place


def snapshotter(place: Place) -> str:
    """`overlayfs`, or where it cannot be mounted `native`, which copies every layer for every container."""
    return "overlayfs" if _can_overlay(place.root) else "native"


@functools.cache
def _can_overlay(folder: Path) -> bool:
    with tempfile.TemporaryDirectory(dir=folder, prefix="overlay-") as trial:
        layers = [Path(trial) / name for name in ("lower", "upper", "work", "merged")]
        for layer in layers:
            layer.mkdir()
        lower, upper, work, merged = layers
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
        if subprocess.run(mount, capture_output=True).returncode != 0:
            return False
        subprocess.run(["umount", str(merged)], check=True)
        return True
