"""Programs that are run to their end."""

import subprocess
from collections.abc import Sequence

from finetune_devcluster import host
from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.kubelet.place import Place

LAST_LINES = 20
# containerd's own namespace for what the kubelet sees
_NAMESPACE = "k8s.io"


def run(command: Sequence[str]) -> None:
    """Raises DevclusterError with what the program said where it failed."""
    output(command)


def output(command: Sequence[str]) -> str:
    """What the program printed. Raises DevclusterError where it failed."""
    done = subprocess.run(command, env=host.environment_without_proxies(), capture_output=True, text=True)
    require(done)
    return done.stdout


def succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def require(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode != 0:
        said = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-LAST_LINES:])
        raise DevclusterError(f"`{' '.join(map(str, done.args))}` failed: {said}")


def ctr(place: Place, *arguments: str) -> list[str]:
    """The command line of `ctr` for this node's containerd."""
    return ["ctr", "--address", str(place.socket), "--namespace", _NAMESPACE, *arguments]
