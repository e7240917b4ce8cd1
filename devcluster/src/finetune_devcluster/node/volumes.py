"""The volumes of one pod: where each lies on the host, and keeping the written ones up to date."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster.node import atomic_files, projected
from finetune_devcluster.node.api import Api
from finetune_devcluster.node.lookup import find
from finetune_devcluster.node.projected import Projections, VolumeError
from finetune_devcluster.node.sandbox import Sandbox
from finetune_devcluster.node.settings import Object


@dataclass(frozen=True)
class Volume:
    path: Path
    read_only: bool = False


class PodVolumes:
    """`pod` gives the pod as it is now; everything is kept below `folder`."""

    def __init__(self, api: Api, folder: Path, pod: Callable[[], Object]) -> None:
        self._api = api
        self._folder = folder
        self._pod = pod
        self._projections = Projections(api, pod)
        self._written: list[Object] = []
        self._in_memory: set[str] = set()

    async def set_up(self, sandbox: Sandbox) -> dict[str, Volume]:
        """Makes every volume of the pod.

        Raises VolumeError for one that can not be made yet; calling again goes on from there.
        """
        volumes = {}
        for volume in self._pod()["spec"].get("volumes") or []:
            volumes[volume["name"]] = await self._set_up(volume, sandbox)
        return volumes

    async def _set_up(self, volume: Object, sandbox: Sandbox) -> Volume:
        if any(kind in volume for kind in projected.KINDS):
            return await self._written_volume(volume)
        if "emptyDir" in volume:
            return await self._empty_dir(volume, sandbox)
        if source := volume.get("hostPath"):
            return _host_path(volume["name"], source)
        if source := volume.get("persistentVolumeClaim"):
            return await self._claim(source["claimName"], source.get("readOnly", False))
        if "ephemeral" in volume:
            return await self._claim(f"{self._pod()['metadata']['name']}-{volume['name']}", False)
        kinds = sorted(volume.keys() - {"name"})
        raise VolumeError(f'volume "{volume["name"]}": {kinds} is not supported by the process node')

    async def _written_volume(self, volume: Object) -> Volume:
        folder = self._folder / volume["name"]
        payload = await self._projections.payload(volume)
        folder.mkdir(parents=True, exist_ok=True)
        atomic_files.write(folder, payload)
        if volume not in self._written:
            self._written.append(volume)
        # The node alone writes them; the kubelet mounts them read-only too.
        return Volume(folder, read_only=True)

    async def _empty_dir(self, volume: Object, sandbox: Sandbox) -> Volume:
        folder = self._folder / volume["name"]
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(0o777)
        if (volume["emptyDir"] or {}).get("medium") == "Memory" and volume["name"] not in self._in_memory:
            await sandbox.mount_memory(folder)
            self._in_memory.add(volume["name"])
        return Volume(folder)

    async def _claim(self, name: str, read_only: bool) -> Volume:
        namespace = self._pod()["metadata"]["namespace"]
        claim = await find(self._api, f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
        if claim is None:
            raise VolumeError(f'persistentvolumeclaim "{name}" not found')
        if (claim.get("status") or {}).get("phase") != "Bound":
            raise VolumeError(f'persistentvolumeclaim "{name}" is not bound')
        persistent = await self._api.get(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")
        spec = persistent["spec"]
        path = (spec.get("hostPath") or spec.get("local") or {}).get("path")
        if not path:
            raise VolumeError(f'persistent volume of claim "{name}": the process node mounts hostPath and local only')
        Path(path).mkdir(parents=True, exist_ok=True)
        return Volume(Path(path), read_only)

    async def refresh(self) -> None:
        """Writes again what has changed: ConfigMaps, Secrets, labels, tokens close to their end."""
        for volume in self._written:
            atomic_files.write(self._folder / volume["name"], await self._projections.payload(volume))

    @property
    def seconds_to_refresh(self) -> float | None:
        moment = self._projections.refresh_at
        return None if moment is None else max(moment - time.time(), 1.0)


def _host_path(name: str, source: Object) -> Volume:
    path = Path(source["path"])
    if source.get("type") == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    if not path.is_dir():
        raise VolumeError(f'volume "{name}": hostPath {path} is not a directory of the host')
    return Volume(path)
