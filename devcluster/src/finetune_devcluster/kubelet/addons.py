"""What a cluster of real nodes has besides its control plane: DNS for Services, and a StorageClass."""

from pathlib import Path
from typing import Any

from finetune_devcluster.components import NODE_NAME
from finetune_devcluster.kubelet.configuration import CLUSTER_DOMAIN, DNS_SERVICE_IP

COREDNS_IMAGE = "localhost/coredns:1"
DNS_NAMESPACE = "kube-system"
STORAGE_CLASS = "local"
VOLUMES = 24
VOLUME_SIZE = "100Gi"
_NOBODY_PROVISIONS = "kubernetes.io/no-provisioner"
_COREFILE = f"""\
.:53 {{
    errors
    health
    ready
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
    }}
    cache 30
}}
"""
_LABELS = {"k8s-app": "kube-dns"}

Manifest = dict[str, Any]


def volume_folders(folder: Path) -> list[Path]:
    """The folder of each volume, below ``folder``."""
    return [folder / f"local-{number:02}" for number in range(VOLUMES)]


def manifests(volumes: Path) -> Manifest:
    """All of it as one List; ``volumes`` holds the folders of the volumes."""
    items = [*dns(), storage_class(), *map(volume, volume_folders(volumes))]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def storage_class() -> Manifest:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": _NOBODY_PROVISIONS,
        "reclaimPolicy": "Retain",
        # As with most volumes that belong to one node: a claim is bound when its first pod is scheduled.
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def volume(folder: Path) -> Manifest:
    """A `local` volume, to which the kubelet applies fsGroup as to a disk; to a hostPath it does not."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": folder.name},
        "spec": {
            "capacity": {"storage": VOLUME_SIZE},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "storageClassName": STORAGE_CLASS,
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def dns() -> list[Manifest]:
    """CoreDNS as its own deployment manifests have it, at the address that the kubelet writes into resolv.conf."""
    return [_account(), _role(), _binding(), _corefile(), _deployment(), _service()]


def _metadata(name: str, **more: Any) -> Manifest:
    return {"name": name, "namespace": DNS_NAMESPACE, **more}


def _account() -> Manifest:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata("coredns")}


def _role() -> Manifest:
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": rules,
    }


def _binding() -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "system:coredns"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
        "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": DNS_NAMESPACE}],
    }


def _corefile() -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata("coredns"), "data": {"Corefile": _COREFILE}}


def _deployment() -> Manifest:
    pod = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        # A drained node of one-node clusters would have no DNS until it is back.
        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
        "dnsPolicy": "Default",
        "containers": [_container()],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata("coredns", labels=_LABELS),
        "spec": {
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": pod},
        },
    }


def _container() -> Manifest:
    return {
        "name": "coredns",
        "image": COREDNS_IMAGE,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "170Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }


def _service() -> Manifest:
    ports = [
        {"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "targetPort": "dns-tcp", "protocol": "TCP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata("kube-dns", labels=_LABELS),
        "spec": {"clusterIP": DNS_SERVICE_IP, "selector": _LABELS, "ports": ports},
    }
