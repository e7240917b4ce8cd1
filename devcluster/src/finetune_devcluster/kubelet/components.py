"""The command lines of the real node's daemons."""

import sys
from pathlib import Path

from finetune_devcluster.components import (
    API_SERVER_PORT,
    CONTAINERD,
    DEVICE_PLUGIN,
    KUBE_PROXY,
    KUBELET,
    NODE_NAME,
    POLICY_AGENT,
    Component,
)
from finetune_devcluster.kubelet.place import Place
from finetune_devcluster.network import Network

CONTAINERD_CONFIG = "containerd.toml"
KUBELET_CONFIG = "kubelet.yaml"
KUBE_PROXY_CONFIG = "kube-proxy.yaml"


def containerd(place: Place) -> Component:
    return Component(CONTAINERD, ("containerd", "--config", str(place.root / CONTAINERD_CONFIG)))


def kubelet(place: Place, network: Network, programs: Path) -> Component:
    program = (
        str(programs / KUBELET),
        f"--config={place.root / KUBELET_CONFIG}",
        f"--kubeconfig={place.layout.component_kubeconfig(KUBELET)}",
        f"--root-dir={place.kubelet}",
        f"--cert-dir={place.kubelet / 'pki'}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={network.cluster_ip}",
    )
    return Component(KUBELET, program)


def kube_proxy(place: Place, programs: Path) -> Component:
    return Component(KUBE_PROXY, (str(programs / KUBE_PROXY), f"--config={place.root / KUBE_PROXY_CONFIG}"))


def device_plugin(programs: Path, resource: str, count: int) -> Component:
    return Component(DEVICE_PLUGIN, (str(programs / DEVICE_PLUGIN), resource, str(count)))


def policy_agent(place: Place, network: Network) -> Component:
    program = (
        sys.executable,
        "-m",
        "finetune_devcluster.kubelet.policy_agent",
        f"--host={network.cluster_ip}",
        f"--port={API_SERVER_PORT}",
        f"--certificates={place.layout.certificates}",
    )
    return Component(POLICY_AGENT, program)
