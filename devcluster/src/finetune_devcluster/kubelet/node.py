"""Brings the real node up: files, images, daemons, GPUs, DNS and volumes. Every step may be repeated."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from finetune_devcluster import binaries
from finetune_devcluster.components import KUBE_PROXY, NODE_NAME, Component, Credentials
from finetune_devcluster.files import write_atomically
from finetune_devcluster.kubelet import addons, archive, components, configuration, machine
from finetune_devcluster.kubelet.commands import ctr, require, run, succeeds
from finetune_devcluster.kubelet.images import import_archive
from finetune_devcluster.kubelet.overlay import snapshotter
from finetune_devcluster.kubelet.place import Place
from finetune_devcluster.layout import Layout
from finetune_devcluster.network import Network, inside

GPU = "nvidia.com/gpu"

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


class KubeletNode:
    """One cluster's real node."""

    def __init__(self, layout: Layout, network: Network) -> None:
        self.place = Place(layout)
        self.network = network

    def write_configuration(self, credentials: Credentials) -> None:
        """All files of the daemons; called before any of them is started."""
        place, server = self.place, credentials.kubelet
        place.make_folders()
        machine.remember(place)
        authority, proxy = credentials.authority.certificate, place.layout.component_kubeconfig(KUBE_PROXY)
        kubelet = configuration.kubelet(place, self.network.cluster_ip, authority, server.certificate, server.key)
        files = {
            components.CONTAINERD_CONFIG: configuration.containerd(place, snapshotter(place)),
            "cni/10-bridge.conflist": configuration.cni(place),
            components.KUBELET_CONFIG: kubelet,
            components.KUBE_PROXY_CONFIG: configuration.kube_proxy(proxy),
        }
        for name, text in files.items():
            write_atomically(place.root / name, text)
        # Inside the cluster's network: between pods and Services, also where both pods are on the bridge.
        settings = ("net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1")
        run(inside(self.network.namespace, "sysctl", "--quiet", "--write", *settings))

    def containerd(self) -> Component:
        return components.containerd(self.place)

    def containerd_answers(self) -> bool:
        return self.place.socket.exists() and succeeds(ctr(self.place, "version"))

    def import_own_images(self, programs: Path) -> None:
        """The image that holds a pod's namespaces, and CoreDNS."""
        architecture = binaries.go_target().partition("/")[2]
        for name, program in ((configuration.PAUSE_IMAGE, "pause"), (addons.COREDNS_IMAGE, "coredns")):
            file = self.place.root / f"{program}.tar"
            if not file.exists():
                archive.write(file, name, programs / program, architecture)
                import_archive(self.place, file)

    def daemons(self, programs: Path) -> list[Component]:
        """What starts after containerd."""
        return [
            components.kubelet(self.place, self.network, programs),
            components.kube_proxy(self.place, programs),
            components.policy_agent(self.place, self.network),
        ]

    def device_plugin(self, programs: Path, gpus: int) -> Component:
        """What registers the GPUs with the kubelet; it cannot start before the kubelet is ready."""
        return components.device_plugin(programs, GPU, gpus)

    def furnish(self, kubectl: Kubectl, gpus: int) -> None:
        """DNS and volumes; waits until DNS and the GPUs are there."""
        for folder in addons.volume_folders(self.place.volumes):
            folder.mkdir(exist_ok=True)
        manifests = json.dumps(addons.manifests(self.place.volumes))
        require(kubectl("apply", "--server-side", "--filename", "-", input=manifests))
        if gpus:
            resource = GPU.replace(".", "\\.")
            offered = f"--for=jsonpath={{.status.allocatable.{resource}}}={gpus}"
            require(kubectl("wait", offered, f"node/{NODE_NAME}", "--timeout=60s"))
        waiting = ("rollout", "status", "deployment/coredns", "--timeout=120s")
        require(kubectl("--namespace", addons.DNS_NAMESPACE, *waiting))
