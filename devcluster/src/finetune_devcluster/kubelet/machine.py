"""What the kubelet and containerd change on the machine outside the cluster's folder, and how it is taken back."""

import contextlib
import json
import socket
from collections.abc import Iterable
from pathlib import Path

from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.files import write_atomically
from finetune_devcluster.kubelet.place import Place

# Set by the kubelet (pkg/kubelet/cm: setupKernelTunables); all are the machine's, not the network namespace's.
SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
# The kubelet's path for device plugins is a constant, whatever its root folder is.
DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
_PROC_SYS = Path("/proc/sys")
_CGROUPS = Path("/sys/fs/cgroup")
_CNI_RESULTS = Path("/var/lib/cni/results")


def require_no_other_kubelet() -> None:
    """Two kubelets of one machine would take each other's device plugins away. Raises DevclusterError where one runs."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(DEVICE_PLUGINS / "kubelet.sock"))
        raise DevclusterError(
            f"another kubelet of this machine answers on {DEVICE_PLUGINS / 'kubelet.sock'}, and there can be one: "
            "end the other cluster (`devcluster down --name NAME`), or use a machine that is not a node"
        )


def remember(place: Place) -> None:
    """Note how the machine is before the kubelet first starts; what an earlier start noted stands."""
    if not place.before.exists():
        sysctls = {name: (_PROC_SYS / name).read_text().strip() for name in SYSCTLS if (_PROC_SYS / name).exists()}
        folders = [DEVICE_PLUGINS, DEVICE_PLUGINS.parent]
        missing = [str(folder) for folder in folders if not folder.exists()]
        write_atomically(place.before, json.dumps({"sysctls": sysctls, "missing": missing}))


def restore(place: Place) -> None:
    """Take back all of it once the cluster's processes have ended; nothing to do where no kubelet was started."""
    if not place.before.exists():
        return
    _remove_files([*shim_sockets(place), *_own_files(place)])
    containers = [bundle.name for bundle in _bundles(place)]
    remove_groups(_CGROUPS, containers)
    for container in containers:
        _remove_files(_CNI_RESULTS.glob(f"*-{container}-*"))
    before = json.loads(place.before.read_text())
    for name, value in before["sysctls"].items():
        (_PROC_SYS / name).write_text(value)
    for folder in map(Path, before["missing"]):
        _remove_folder(folder)
    place.before.unlink()


def shim_sockets(place: Place) -> list[Path]:
    """The sockets of the containers' shims, which lie in /run/containerd whatever containerd is configured to."""
    found = []
    for bundle in _bundles(place):
        with contextlib.suppress(FileNotFoundError):
            found.append(Path((bundle / "address").read_text().strip().removeprefix("unix://")))
    return found


def remove_groups(root: Path, containers: Iterable[str]) -> None:
    """Remove the groups that containerd made for the containers, below ``root`` (version 2) and its hierarchies (version 1)."""
    names = set(containers)
    for parent in [*root.glob("k8s.io"), *root.glob("*/k8s.io")]:
        for group in parent.iterdir():
            if group.is_dir() and group.name in names:
                _remove_tree(group)
        # Stays while another containerd of the machine has groups in it.
        _remove_folder(parent)


def _remove_tree(group: Path) -> None:
    """The files of a group cannot be removed, and go with it: folders only, the deepest first."""
    below = [path for path in group.rglob("*") if path.is_dir()]
    for folder in sorted([group, *below], key=lambda path: len(path.parts), reverse=True):
        _remove_folder(folder)


def _remove_folder(folder: Path) -> None:
    # What somebody else has put something into is not ours any more.
    with contextlib.suppress(OSError):
        folder.rmdir()


def _remove_files(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _own_files(place: Place) -> list[Path]:
    """Outside the cluster's folder. The device plugins' are ours, since no other kubelet ran (require_no_other_kubelet)."""
    ttrpc = place.socket.with_name(f"{place.socket.name}.ttrpc")
    return [place.socket, ttrpc, *DEVICE_PLUGINS.glob("*.sock"), DEVICE_PLUGINS / "kubelet_internal_checkpoint"]


def _bundles(place: Place) -> list[Path]:
    return sorted((place.containers / "io.containerd.runtime.v2.task" / "k8s.io").glob("*"))
