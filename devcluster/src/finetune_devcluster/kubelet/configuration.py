"""What containerd, CNI, the kubelet and kube-proxy are told, as the contents of their files."""

import json
from pathlib import Path
from typing import Any

import yaml

from finetune_devcluster.components import NODE_NAME, POD_CIDR
from finetune_devcluster.kubelet.place import Place

DNS_SERVICE_IP = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
PAUSE_IMAGE = "localhost/pause:1"
CNI_PLUGINS = Path("/usr/lib/cni")
# The node's part of POD_CIDR
_NODE_POD_CIDR = "10.244.0.0/24"
_SNAPSHOTTERS = ("aufs", "btrfs", "devmapper", "zfs")
_UNUSED_PLUGINS = [*(f"io.containerd.snapshotter.v1.{name}" for name in _SNAPSHOTTERS), "io.containerd.internal.v1.opt"]


def containerd(place: Place, snapshotter: str) -> str:
    """config.toml, version 2: https://github.com/containerd/containerd/blob/release/1.6/docs/cri/config.md"""
    return f"""\
version = 2
root = {_quoted(place.images)}
state = {_quoted(place.containers)}
# Their start may fail where the machine lacks a kernel module; nobody asks for them here.
disabled_plugins = {json.dumps(_UNUSED_PLUGINS)}

[grpc]
address = {_quoted(place.socket)}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# Without CAP_SYS_RESOURCE, as in many containers and sandboxes, nobody may lower the score that runc is told to set.
restrict_oom_score_adj = true
# Below the cluster's folder, so that what is left of a pod can be told from what is not ours.
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = {_quoted(place.runc)}

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = {_quoted(place.cni)}
"""


def cni(place: Place) -> str:
    """A bridge in the cluster's network namespace, which is every pod's way out."""
    addresses = {
        "type": "host-local",
        "dataDir": str(place.addresses),
        "ranges": [[{"subnet": _NODE_POD_CIDR}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        # A pod may reach itself through its own Service.
        "hairpinMode": True,
        "ipam": addresses,
    }
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return json.dumps({"cniVersion": "0.4.0", "name": place.network, "plugins": plugins}, indent=2)


def kubelet(place: Place, address: str, authority: Path, certificate: Path, key: Path) -> str:
    """Differs from the defaults only where one machine that does other work too needs it."""
    return _yaml(
        "kubelet.config.k8s.io/v1beta1",
        "KubeletConfiguration",
        {
            "address": address,
            "tlsCertFile": str(certificate),
            "tlsPrivateKeyFile": str(key),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority)},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{place.socket}",
            "clusterDNS": [DNS_SERVICE_IP],
            "clusterDomain": CLUSTER_DOMAIN,
            # The machine's own resolver is not to be reached from the cluster's network.
            "resolvConf": "",
            "podLogsDir": str(place.logs),
            "volumePluginDir": str(place.volume_plugins),
            "failSwapOn": False,
            **_control_groups(),
            "oomScoreAdj": 0,
            # The disk is shared with whatever else the machine does: nothing is evicted or deleted for that.
            "evictionHard": {"memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100,
            "makeIPTablesUtilChains": False,
        },
    )


def _control_groups() -> dict[str, Any]:
    return {
        "cgroupDriver": "cgroupfs",
        # cgroup v1 still works, and refusing it is the default since 1.35.
        "failCgroupV1": False,
        # Without a tree of its own the kubelet need not own the machine's root group.
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
    }


def kube_proxy(kubeconfig: Path) -> str:
    return _yaml(
        "kubeproxy.config.k8s.io/v1alpha1",
        "KubeProxyConfiguration",
        {
            "mode": "iptables",
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "clusterCIDR": POD_CIDR,
            "hostnameOverride": NODE_NAME,
            "bindAddress": "127.0.0.1",
            "oomScoreAdj": 0,
            # These sizes are the whole machine's, not the cluster's to change.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "iptables": {"syncPeriod": "30s", "minSyncPeriod": "0s"},
        },
    )


def _yaml(version: str, kind: str, fields: dict[str, Any]) -> str:
    return yaml.safe_dump({"apiVersion": version, "kind": kind, **fields}, sort_keys=False)


def _quoted(path: Path) -> str:
    """A TOML basic string: JSON's escapes are a subset of TOML's."""
    return json.dumps(str(path))
