"""One volume in one place, and the two lists of a pod that a set of them makes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from finetune_operator.build.types import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A volume at a path. Mounts of one name are one volume, mounted several times."""

    name: str
    source: Manifest
    """The volume without its name, such as {"emptyDir": {}}."""
    path: str
    read_only: bool = True
    sub_path: str | None = None


def volumes(mounts: Iterable[Mount]) -> list[Manifest]:
    """The pod's volumes, each once."""
    by_name = {mount.name: {"name": mount.name, **mount.source} for mount in mounts}
    return list(by_name.values())


def volume_mounts(mounts: Iterable[Mount]) -> list[Manifest]:
    """The container's mounts."""
    return [_volume_mount(mount) for mount in mounts]


def _volume_mount(mount: Mount) -> Manifest:
    built: Manifest = {"name": mount.name, "mountPath": mount.path}
    if mount.read_only:
        built["readOnly"] = True
    if mount.sub_path:
        built["subPath"] = mount.sub_path
    return built
