"""What the devcluster needs of the machine that it runs on."""

import os
import shutil
from collections.abc import Mapping

from finetune_devcluster.errors import DevclusterError

_DEBIAN_PACKAGES = {
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}


# What a real node takes from Debian: programs and CNI's plugins by their paths.
_NODE_PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "sysctl": "procps",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/lib/cni/host-local": "containernetworking-plugins",
    "/usr/lib/cni/loopback": "containernetworking-plugins",
    "/usr/lib/cni/portmap": "containernetworking-plugins",
}


def require_root() -> None:
    if os.geteuid() != 0:
        raise DevclusterError(
            f"found user id {os.geteuid()}, expected root, who may make network namespaces: "
            "run it as root, e.g. `sudo -E make cluster`"
        )


def require_programs() -> None:
    _require(_DEBIAN_PACKAGES)


def require_node_programs() -> None:
    """What a real node needs besides; raises DevclusterError that names all that is missing and its packages."""
    _require(_NODE_PACKAGES)


def missing_node_packages() -> list[str]:
    """Debian's names of the packages that a real node lacks."""
    return sorted({package for program, package in _NODE_PACKAGES.items() if not shutil.which(program)})


def _require(packages: Mapping[str, str]) -> None:
    missing = [program for program in packages if not shutil.which(program)]
    if missing:
        wanted = " ".join(sorted({packages[program] for program in missing}))
        raise DevclusterError(f"not on PATH: {', '.join(missing)}; on Debian and Ubuntu: `apt-get install {wanted}`")


def environment_without_proxies() -> dict[str, str]:
    """No address of the cluster is behind the proxy that the caller may have set for the Internet."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
