"""The Node object and its Lease."""

from __future__ import annotations

import asyncio
import logging
import os
import platform

from finetune_devcluster.node import clock
from finetune_devcluster.node.api import API_FAILURES, STRATEGIC_PATCH, Api, ApiError
from finetune_devcluster.node.devices import GPU_RESOURCE
from finetune_devcluster.node.settings import KUBELET_PORT, Object, Settings

logger = logging.getLogger(__name__)

LABEL = "finetune-operator.io/process-node"
ANNOTATION = "finetune-operator.io/process-node-is-not"
NOT = (
    "This node runs pods as local processes: no images are pulled, no cgroup limits, no users (runAsUser is not applied), "
    "no seccomp or capabilities, no read-only root; the host's file system is visible to every pod."
)
_MAX_PODS = "110"
_LEASE_SECONDS = 40
_BEAT_SECONDS = 10
_RETRY_SECONDS = 1


class Registration:
    def __init__(self, api: Api, settings: Settings) -> None:
        self._api = api
        self._settings = settings
        self._path = f"/api/v1/nodes/{settings.node_name}"
        self._lease_path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

    async def run(self) -> None:
        """Keeps the Node registered and Ready; a Node that was deleted is made again."""
        while True:
            try:
                await self._beat()
                await asyncio.sleep(_BEAT_SECONDS)
            except API_FAILURES as error:
                logger.info("node %s: not renewed: %s", self._settings.node_name, error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _beat(self) -> None:
        body = {"status": node_status(self._settings, clock.rfc3339())}
        try:
            node = await self._api.patch(f"{self._path}/status", body, STRATEGIC_PATCH)
        except ApiError as error:
            if error.status != 404:
                raise
            node = await self._register()
        await self._renew_lease(node)

    async def _register(self) -> Object:
        logger.info("registering node %s", self._settings.node_name)
        await self._api.create("/api/v1/nodes", node_object(self._settings, clock.rfc3339()))
        # Admission taints a new node as not ready; the node controller takes the taint away on the next Ready.
        return await self._api.get(self._path)

    async def _renew_lease(self, node: Object) -> None:
        lease = self._lease(node)
        try:
            await self._api.patch(f"{self._lease_path}/{self._settings.node_name}", {"spec": lease["spec"]})
        except ApiError as error:
            if error.status != 404:
                raise
            await self._api.create(self._lease_path, lease)

    def _lease(self, node: Object) -> Object:
        name = self._settings.node_name
        owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease", "ownerReferences": [owner]},
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": _LEASE_SECONDS,
                "renewTime": clock.rfc3339_micro(),
            },
        }


def node_object(settings: Settings, now: str) -> Object:
    labels = {
        LABEL: "true",
        "kubernetes.io/hostname": settings.node_name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "arm64" if platform.machine() == "aarch64" else "amd64",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": settings.node_name, "labels": labels, "annotations": {ANNOTATION: NOT}},
        "spec": {},
        "status": node_status(settings, now),
    }


def node_status(settings: Settings, now: str) -> Object:
    resources = _resources(settings)
    return {
        "capacity": resources,
        "allocatable": resources,
        "addresses": [
            {"type": "InternalIP", "address": settings.host_ip},
            {"type": "Hostname", "address": settings.node_name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
        "conditions": [
            _condition("Ready", "True", "KubeletReady", "process node is posting ready status", now),
            _condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "not measured", now),
            _condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "not measured", now),
            _condition("PIDPressure", "False", "KubeletHasSufficientPID", "not measured", now),
        ],
        "nodeInfo": _node_info(),
    }


def _resources(settings: Settings) -> dict[str, str]:
    disk = os.statvfs(settings.state_dir)
    return {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 1024}Ki",
        "ephemeral-storage": f"{disk.f_blocks * disk.f_frsize // 1024}Ki",
        "pods": _MAX_PODS,
        GPU_RESOURCE: str(settings.gpus),
    }


def _condition(kind: str, status: str, reason: str, message: str, now: str) -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
    }


def _node_info() -> Object:
    return {
        "architecture": "arm64" if platform.machine() == "aarch64" else "amd64",
        "bootID": "",
        "containerRuntimeVersion": "process-node://0.1.0",
        "kernelVersion": platform.release(),
        "kubeProxyVersion": "",
        "kubeletVersion": "v0.1.0-process-node",
        "machineID": "",
        "operatingSystem": "linux",
        "osImage": "host",
        "systemUUID": "",
    }
