"""What is mounted where in a container, as the launcher takes it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from finetune_devcluster.node.environment import expand
from finetune_devcluster.node.launcher import FRESH
from finetune_devcluster.node.settings import Object
from finetune_devcluster.node.volumes import Volume

DEFAULT_TERMINATION_LOG = "/dev/termination-log"


@dataclass(frozen=True)
class Mount:
    """As the launcher reads it, hence the names. `subPath` is an entry of `source`, or empty for all of it."""

    source: str
    target: str
    subPath: str = ""
    readOnly: bool = False


def project_folders(folders: Iterable[Path]) -> dict[str, Path]:
    """Of the folders that every container needs, those that its own /tmp or /run would hide, by target."""
    return {str(folder): folder for folder in folders if folder.parts[1:2] and folder.parts[1] in FRESH}


def container_mounts(
    container: Object, volumes: Mapping[str, Volume], files: Mapping[str, Path], variables: Mapping[str, str]
) -> list[Object]:
    """The volume mounts of the spec and the node's own files by target, outer mount points before inner ones."""
    mounts = [_volume_mount(entry, volumes[entry["name"]], variables) for entry in container.get("volumeMounts") or []]
    taken = {mount.target for mount in mounts}
    mounts += [Mount(str(source), target) for target, source in files.items() if target not in taken]
    return [asdict(mount) for mount in sorted(mounts, key=lambda mount: mount.target.count("/"))]


def _volume_mount(entry: Object, volume: Volume, variables: Mapping[str, str]) -> Mount:
    relative = entry.get("subPath") or expand(entry.get("subPathExpr") or "", variables)
    return Mount(
        source=str(volume.path),
        target=posixpath.normpath(posixpath.join("/", entry["mountPath"])),
        subPath=relative,
        readOnly=bool(entry.get("readOnly")) or volume.read_only,
    )


def termination_log_path(container: Object) -> str:
    return str(container.get("terminationMessagePath") or DEFAULT_TERMINATION_LOG)
