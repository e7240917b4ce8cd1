"""What the devcluster needs of the machine that it runs on."""

import os
import shutil

from finetune_devcluster.errors import DevclusterError

_DEBIAN_PACKAGES = {
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}


def require_root() -> None:
    if os.geteuid() != 0:
        raise DevclusterError(
            f"found user id {os.geteuid()}, expected root, who may make network namespaces: "
            "run it as root, e.g. `sudo -E make cluster`"
        )


def require_programs() -> None:
    missing = [program for program in _DEBIAN_PACKAGES if not shutil.which(program)]
    if missing:
        packages = " ".join(sorted({_DEBIAN_PACKAGES[program] for program in missing}))
        raise DevclusterError(f"not on PATH: {', '.join(missing)}; on Debian and Ubuntu: `apt-get install {packages}`")


def environment_without_proxies() -> dict[str, str]:
    """No address of the cluster is behind the proxy that the caller may have set for the Internet."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
