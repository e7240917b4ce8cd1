"""Where one cluster's real node keeps its files: all below the node's folder, but for the runtime's socket."""

from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster.layout import Layout


@dataclass(frozen=True)
class Place:
    """The files of one cluster's node."""

    layout: Layout

    @property
    def root(self) -> Path:
        return self.layout.node_state

    @property
    def network(self) -> str:
        """Name of the pods' network; CNI's own records of it begin with this name."""
        return f"ftc-{self.layout.name}"

    @property
    def socket(self) -> Path:
        """In /run: the path of a socket may have 107 bytes, and a checkout may lie deep."""
        return Path(f"/run/finetune-devcluster.{self.layout.name}.containerd.sock")

    @property
    def images(self) -> Path:
        return self.root / "containerd" / "root"

    @property
    def containers(self) -> Path:
        return self.root / "containerd" / "state"

    @property
    def runc(self) -> Path:
        return self.root / "containerd" / "runc"

    @property
    def cni(self) -> Path:
        return self.root / "cni"

    @property
    def addresses(self) -> Path:
        return self.root / "addresses"

    @property
    def kubelet(self) -> Path:
        return self.root / "kubelet"

    @property
    def logs(self) -> Path:
        return self.root / "pod-logs"

    @property
    def volume_plugins(self) -> Path:
        return self.root / "volume-plugins"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def before(self) -> Path:
        """How the machine was before the kubelet changed it; stands as long as that is not taken back."""
        return self.root / "machine-before.json"

    def make_folders(self) -> None:
        for folder in (self.images, self.containers, self.cni, self.addresses, self.kubelet, self.logs, self.volumes):
            folder.mkdir(parents=True, exist_ok=True)
