"""The command lines of the control plane's programs and of the process node, and all components' names."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster.certificates import KeyPair
from finetune_devcluster.layout import Layout
from finetune_devcluster.network import Network

ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
NODE = "node"
CONTAINERD = "containerd"
KUBELET = "kubelet"
KUBE_PROXY = "kube-proxy"
DEVICE_PLUGIN = "device-plugin"
POLICY_AGENT = "policy-agent"
CONTROL_PLANE = (ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER)
KUBELET_NODE = (CONTAINERD, KUBELET, KUBE_PROXY, POLICY_AGENT)
START_ORDER = (*CONTROL_PLANE, NODE, *KUBELET_NODE, DEVICE_PLUGIN)

FRONT_PROXY_USER = "front-proxy-client"

SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE_IP = "10.96.0.1"
POD_CIDR = "10.244.0.0/16"
NODE_NAME = "node-0"
API_SERVER_PORT = 6443
KUBELET_PORT = 10250
ETCD_CLIENT_URL = "http://127.0.0.1:2379"
ETCD_PEER_URL = "http://127.0.0.1:2380"


@dataclass(frozen=True)
class Component:
    """A daemon of the cluster and its command line."""

    name: str
    program: tuple[str, ...]


@dataclass(frozen=True)
class Credentials:
    """The key pairs that the cluster's programs are started with, and its administrator's."""

    authority: KeyPair
    service_account_key: Path
    api_server: KeyPair
    kubelet: KeyPair
    kubelet_client: KeyPair
    front_proxy_authority: KeyPair
    front_proxy_client: KeyPair
    administrator: KeyPair


def server_url(network: Network) -> str:
    return f"https://{network.cluster_ip}:{API_SERVER_PORT}"


def addresses(network: Network) -> dict[str, str]:
    """Where each component answers, inside the cluster's network namespace."""
    return {
        ETCD: ETCD_CLIENT_URL,
        API_SERVER: server_url(network),
        CONTROLLER_MANAGER: "https://127.0.0.1:10257",
        SCHEDULER: "https://127.0.0.1:10259",
        NODE: f"https://{network.cluster_ip}:{KUBELET_PORT}",
        CONTAINERD: "-",
        KUBELET: f"https://{network.cluster_ip}:{KUBELET_PORT}",
        KUBE_PROXY: "http://127.0.0.1:10249",
        DEVICE_PLUGIN: "-",
        POLICY_AGENT: "-",
    }


def _flags(settings: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(f"--{name}={value}" for name, value in settings.items())


def etcd(layout: Layout, binaries: Path) -> Component:
    settings = {
        "name": ETCD,
        "data-dir": layout.etcd_data,
        "listen-client-urls": ETCD_CLIENT_URL,
        "advertise-client-urls": ETCD_CLIENT_URL,
        "listen-peer-urls": ETCD_PEER_URL,
        "initial-advertise-peer-urls": ETCD_PEER_URL,
        "initial-cluster": f"{ETCD}={ETCD_PEER_URL}",
        # The data is thrown away with the cluster; a power cut may cost it.
        "unsafe-no-fsync": "true",
        "logger": "zap",
        "log-level": "warn",
    }
    return Component(ETCD, (str(binaries / ETCD), *_flags(settings)))


def api_server(network: Network, binaries: Path, credentials: Credentials) -> Component:
    settings = {
        "etcd-servers": ETCD_CLIENT_URL,
        "bind-address": network.cluster_ip,
        "advertise-address": network.cluster_ip,
        "secure-port": API_SERVER_PORT,
        "tls-cert-file": credentials.api_server.certificate,
        "tls-private-key-file": credentials.api_server.key,
        "client-ca-file": credentials.authority.certificate,
        "kubelet-certificate-authority": credentials.authority.certificate,
        "kubelet-client-certificate": credentials.kubelet_client.certificate,
        "kubelet-client-key": credentials.kubelet_client.key,
        # The node has no DNS name that the API server could resolve.
        "kubelet-preferred-address-types": "InternalIP",
        # How aggregated API servers (a metrics server, say) know that a request has come through this one.
        "requestheader-client-ca-file": credentials.front_proxy_authority.certificate,
        "requestheader-allowed-names": FRONT_PROXY_USER,
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": credentials.front_proxy_client.certificate,
        "proxy-client-key-file": credentials.front_proxy_client.key,
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": credentials.service_account_key,
        "service-account-signing-key-file": credentials.service_account_key,
        "service-cluster-ip-range": SERVICE_CIDR,
        "authorization-mode": "Node,RBAC",
        "allow-privileged": "true",
    }
    return Component(API_SERVER, (str(binaries / API_SERVER), *_flags(settings)))


def controller_manager(layout: Layout, binaries: Path, credentials: Credentials) -> Component:
    kubeconfig = layout.component_kubeconfig(CONTROLLER_MANAGER)
    settings = {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "root-ca-file": credentials.authority.certificate,
        "client-ca-file": credentials.authority.certificate,
        "cluster-signing-cert-file": credentials.authority.certificate,
        "cluster-signing-key-file": credentials.authority.key,
        "service-account-private-key-file": credentials.service_account_key,
        "use-service-account-credentials": "true",
        # Each controller first asks for a token of its own; at the default of 20 requests/s that takes 5 s.
        "kube-api-qps": 200,
        "kube-api-burst": 400,
        # One instance has nobody to elect a leader against, and the election costs seconds at the start.
        "leader-elect": "false",
    }
    program = (str(binaries / CONTROLLER_MANAGER), *_flags(settings))
    return Component(CONTROLLER_MANAGER, program)


def scheduler(layout: Layout, binaries: Path) -> Component:
    kubeconfig = layout.component_kubeconfig(SCHEDULER)
    settings = {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
    }
    return Component(SCHEDULER, (str(binaries / SCHEDULER), *_flags(settings)))


def process_node(
    layout: Layout, network: Network, credentials: Credentials, gpus: int, images: Path | None = None
) -> Component:
    """``images``: the folder with the programs of the images. Default: this environment's bin folder."""
    settings = {
        "kubeconfig": layout.component_kubeconfig(NODE),
        "state-dir": layout.node_state,
        "node-name": NODE_NAME,
        "pod-cidr": POD_CIDR,
        "service-cidr": SERVICE_CIDR,
        "gpus": gpus,
        "host-ip": network.cluster_ip,
        "tls-cert": credentials.kubelet.certificate,
        "tls-key": credentials.kubelet.key,
        "client-ca": credentials.authority.certificate,
        # Not resolved: a virtual environment's python is a link that leads out of its bin folder.
        "path-prefix": images or Path(sys.executable).parent,
    }
    program = (sys.executable, "-m", "finetune_devcluster.node", *_flags(settings))
    return Component(NODE, program)
