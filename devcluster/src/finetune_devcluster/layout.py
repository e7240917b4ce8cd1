"""Where one cluster keeps its files."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster.errors import DevclusterError

# The name becomes part of a network namespace's file name and of a folder's name.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


def project_root() -> Path:
    """The checkout that this editable installation belongs to."""
    return Path(__file__).resolve().parents[3]


def default_home() -> Path:
    """`$DEVCLUSTER_HOME`, else `.devcluster` in the checkout."""
    configured = os.environ.get("DEVCLUSTER_HOME")
    return Path(configured).absolute() if configured else project_root() / ".devcluster"


@dataclass(frozen=True)
class Layout:
    """The files of the cluster `name` below the folder `home`."""

    home: Path
    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise DevclusterError(
                f"--name: found {self.name!r}, expected 1 to 40 of a-z, 0-9 and '-', "
                "beginning and ending with a letter or digit"
            )

    @property
    def state(self) -> Path:
        return self.home / self.name

    @property
    def lock(self) -> Path:
        """A name is unique on the machine, as its network namespace is, and so is its lock."""
        return Path(f"/run/finetune-devcluster.{self.name}.lock")

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def certificates(self) -> Path:
        return self.state / "pki"

    @property
    def etcd_data(self) -> Path:
        return self.state / "etcd"

    @property
    def node_state(self) -> Path:
        return self.state / "node"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    def log_file(self, component: str) -> Path:
        return self.logs / f"{component}.log"

    @property
    def pids(self) -> Path:
        return self.state / "pids"

    def pid_files(self) -> list[Path]:
        return sorted(self.pids.glob("*.json"))

    def pid_file(self, component: str) -> Path:
        return self.pids / f"{component}.json"

    def component_kubeconfig(self, component: str) -> Path:
        return self.state / f"{component}.kubeconfig"

    def make_folders(self) -> None:
        """The state folder holds private keys, so only its owner may enter it."""
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.certificates, self.logs, self.node_state, self.pids):
            folder.mkdir(exist_ok=True)
