"""What the command line of the process node decides."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object as its JSON."""

KUBELET_PORT = 10250


@dataclass(frozen=True)
class Settings:
    kubeconfig: Path
    state_dir: Path
    node_name: str
    pod_cidr: IPv4Network
    service_cidr: IPv4Network
    gpus: int
    host_ip: str
    path_prefix: Path
    tls_cert: Path
    tls_key: Path
    client_ca: Path

    @property
    def pods_dir(self) -> Path:
        return self.state_dir / "pods"

    @property
    def claims_dir(self) -> Path:
        return self.state_dir / "volumes"

    @property
    def processes_dir(self) -> Path:
        return self.state_dir / "processes"

    @property
    def gateway(self) -> str:
        """Address of the bridge: the pods' default route."""
        return str(self.pod_cidr.network_address + 1)
