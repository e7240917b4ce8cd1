"""Processes and mounts that a cluster may leave behind when its daemons are gone.

A pod's processes have network and PID namespaces of their own, so neither the cluster's namespace nor the
process tree leads to them once the node is dead. What they cannot lose are the files of the node's folder
(volumes, termination log, hosts file) mounted into their mount namespace.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.network import Network
from finetune_devcluster.processes import Identity

# Device, root within its file system, and mount point: fields 3 to 5 of proc_pid_mountinfo(5).
Mount = tuple[str, Path, Path]


def processes(network: Network | None, folder: Path) -> list[Identity]:
    """All that run in the cluster's network namespace, if it stands, or have a part of the node's folder mounted."""
    device, location = _place_in_filesystem(folder)
    own_mounts = os.stat("/proc/self/ns/mnt").st_ino

    def is_of_a_pod(pid: int) -> bool:
        try:
            if os.stat(f"/proc/{pid}/ns/mnt").st_ino == own_mounts:
                return False
            return any(_is_a_pods(mount, device, location, folder) for mount in _mounts(str(pid)))
        except OSError:
            # Ended meanwhile (the kernel has several errors for that), or guarded more closely than anything that a
            # cluster starts.
            return False

    pids = set(network.pids()) if network else set()
    pids |= {int(entry) for entry in os.listdir("/proc") if entry.isdecimal() and is_of_a_pod(int(entry))}
    return [identity for identity in map(Identity.of, pids - {os.getpid()}) if identity]


def unmount_below(folder: Path) -> None:
    """Detach every mount below the folder, so that removing it cannot reach into a volume's data."""
    inside = [point for _, _, point in _mounts("self") if point.is_relative_to(folder)]
    for mount_point in sorted(inside, key=lambda point: len(point.parts), reverse=True):
        done = subprocess.run(["umount", "--lazy", mount_point], capture_output=True, text=True)
        if done.returncode != 0:
            raise DevclusterError(f"cannot unmount {mount_point}: {done.stderr.strip()}; unmount it by hand")


def _is_a_pods(mount: Mount, device: str, location: Path, folder: Path) -> bool:
    """Whether a part of the folder is mounted somewhere else.

    What is mounted below the folder itself may be a copy of the host's own mounts: every service that systemd
    gives a mount namespace has those, and must not be killed.
    """
    mounted_device, root, mount_point = mount
    is_part = mounted_device == device and root.is_relative_to(location)
    return is_part and not mount_point.is_relative_to(folder)


def _place_in_filesystem(folder: Path) -> tuple[str, Path]:
    """The device of the folder, and its path from that file system's own root."""
    mounts = [m for m in _mounts("self") if folder.resolve().is_relative_to(m[2])]
    # Of two mounts on one point the later one is seen.
    device, root, mount_point = max(reversed(mounts), key=lambda mount: len(mount[2].parts))
    return device, root / folder.resolve().relative_to(mount_point)


def _mounts(pid: str) -> Iterator[Mount]:
    with open(f"/proc/{pid}/mountinfo") as lines:
        for line in lines:
            _, _, device, root, mount_point, *_ = line.split(" ")
            yield device, Path(_unescape(root)), Path(_unescape(mount_point))


def _unescape(field: str) -> str:
    """The kernel writes space, tab, newline and backslash as three octal digits."""
    for character in " \t\n\\":
        field = field.replace(f"\\{ord(character):03o}", character)
    return field
