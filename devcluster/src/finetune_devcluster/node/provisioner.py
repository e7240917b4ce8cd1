"""Dynamic volumes: a folder of the node for each claim of the StorageClass `process-node`."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from finetune_devcluster.node.api import API_FAILURES, Api, ApiError
from finetune_devcluster.node.settings import Object

logger = logging.getLogger(__name__)

STORAGE_CLASS = "process-node"
PROVISIONER = "finetune-operator.io/process-node"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_RETRY_SECONDS = 1.0


class Provisioner:
    """Told of claims and volumes; makes and deletes volumes. The control plane's own controller binds them."""

    def __init__(self, api: Api, folder: Path) -> None:
        self._api = api
        self._folder = folder
        self._todo: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()

    def claim_changed(self, claim: Object, deleted: bool) -> None:
        if not deleted and _wants_volume(claim):
            self._todo.put_nowait(("provision", claim))

    def volume_changed(self, volume: Object, deleted: bool) -> None:
        if not deleted and _is_released(volume):
            self._todo.put_nowait(("delete", volume))

    async def run(self) -> None:
        await self._ensure_class()
        while True:
            action, item = await self._todo.get()
            try:
                await (self._provision(item) if action == "provision" else self._delete(item))
            except API_FAILURES as error:
                logger.info("%s %s: %s", action, item["metadata"]["name"], error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._todo.put_nowait((action, item))

    async def _ensure_class(self) -> None:
        while True:
            try:
                await self._make_class()
                return
            except API_FAILURES as error:
                logger.info("storage class %s: %s", STORAGE_CLASS, error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _make_class(self) -> None:
        body = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": STORAGE_CLASS, "annotations": {_DEFAULT_CLASS: "true"}},
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
        }
        await self._create("/apis/storage.k8s.io/v1/storageclasses", body)

    async def _provision(self, claim: Object) -> None:
        uid = claim["metadata"]["uid"]
        path = self._folder / uid
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)
        await self._create("/api/v1/persistentvolumes", volume_for(claim, path))

    async def _create(self, path: str, body: Object) -> None:
        try:
            await self._api.create(path, body)
        except ApiError as error:
            if error.status != 409:  # it is there already
                raise

    async def _delete(self, volume: Object) -> None:
        shutil.rmtree(volume["spec"]["hostPath"]["path"], ignore_errors=True)
        try:
            await self._api.delete(f"/api/v1/persistentvolumes/{volume['metadata']['name']}")
        except ApiError as error:
            if error.status != 404:
                raise


def _wants_volume(claim: Object) -> bool:
    spec = claim["spec"]
    pending = (claim.get("status") or {}).get("phase", "Pending") == "Pending"
    deleting = claim["metadata"].get("deletionTimestamp")
    return pending and not deleting and spec.get("storageClassName") == STORAGE_CLASS and not spec.get("volumeName")


def _is_released(volume: Object) -> bool:
    ours = (volume["metadata"].get("annotations") or {}).get(_PROVISIONED_BY) == PROVISIONER
    released = (volume.get("status") or {}).get("phase") in ("Released", "Failed")
    reclaimed = volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    return ours and released and reclaimed and not volume["metadata"].get("deletionTimestamp")


def volume_for(claim: Object, path: Path) -> Object:
    metadata, spec = claim["metadata"], claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pvc-{metadata['uid']}", "annotations": {_PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "storageClassName": STORAGE_CLASS,
            "persistentVolumeReclaimPolicy": "Delete",
            "volumeMode": "Filesystem",
            "hostPath": {"path": str(path), "type": "DirectoryOrCreate"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        },
    }
