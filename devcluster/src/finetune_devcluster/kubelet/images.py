"""Takes images into the node's containerd: from archives, and from buildah's storage.

An image with torch has six gigabytes. Sent through an archive they are written three times, which takes minutes; so
the layers of buildah's storage become containerd's snapshots by hard links, and only manifest and configuration are sent.
"""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.kubelet import archive
from finetune_devcluster.kubelet.commands import ctr, output, run, succeeds
from finetune_devcluster.kubelet.overlay import snapshotter
from finetune_devcluster.kubelet.place import Place
from finetune_devcluster.layout import Layout
from finetune_devcluster.progress import say

_SNAPSHOTTER = "overlayfs"


@dataclass(frozen=True)
class BuiltImage:
    """An image of buildah's storage."""

    name: str
    manifest: bytes
    config: bytes
    # The folders of its layers, the lowest first
    layers: list[Path]

    @property
    def chain(self) -> list[str]:
        """The names that containerd gives the layers' snapshots."""
        return chain_ids(json.loads(self.config)["rootfs"]["diff_ids"])


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """OCI image specification, config.md, "Layer ChainID"."""
    chain: list[str] = []
    for diff_id in diff_ids:
        below = f"{chain[-1]} {diff_id}".encode() if chain else None
        chain.append(f"sha256:{hashlib.sha256(below).hexdigest()}" if below else diff_id)
    return chain


def import_archive(place: Place, file: Path) -> None:
    """Import an archive of `docker save`, or an OCI layout in a tar file."""
    run(ctr(place, "images", "import", "--snapshotter", snapshotter(place), str(file)))


def import_from_buildah(layout: Layout, images: Sequence[str]) -> None:
    """Import images from buildah's storage: in seconds where it lies on the file system of the cluster's folder."""
    place = Place(layout)
    _require_built(images)
    for image in images:
        say(f"importing {image}")
        if snapshotter(place) == _SNAPSHOTTER:
            _link(place, _built_image(image))
        else:
            _copy(place, image)


def _link(place: Place, image: BuiltImage) -> None:
    for below, chain_id, folder in zip(["", *image.chain[:-1]], image.chain, image.layers, strict=True):
        if not succeeds(_snapshots(place, "info", chain_id)):
            _link_layer(place, chain_id, below, folder)
    file = place.root / "image.tar"
    archive.write_index(file, image.name, image.manifest, image.config)
    run(ctr(place, "images", "import", "--no-unpack", str(file)))
    file.unlink()


def _copy(place: Place, image: str) -> None:
    """Only overlayfs keeps a layer as the folder that buildah has of it."""
    file = place.root / "image.tar"
    run(["buildah", "push", "--quiet", image, f"oci-archive:{file}:{image}"])
    import_archive(place, file)
    file.unlink()


def _link_layer(place: Place, chain_id: str, below: str, folder: Path) -> None:
    key = f"linking-{chain_id}"
    if succeeds(_snapshots(place, "info", key)):  # of an import that was killed
        run(_snapshots(place, "rm", key))
    run(_snapshots(place, "prepare", key, *([below] if below else [])))
    target = upper_folder(output(_snapshots(place, "mounts", "/none", key)))
    # buildah leaves its folder mounted on itself, and the kernel links nothing across mounts; a copy costs minutes.
    link = 'umount --lazy "$1" 2>/dev/null; exec cp --archive --link "$2/." "$3/"'
    if not succeeds(["unshare", "--mount", "sh", "-c", link, "link", *map(str, (folder.parents[1], folder, target))]):
        say("the images lie on another file system than the cluster: copying")
        run(["cp", "--archive", "--force", f"{folder}/.", f"{target}/"])
    run(_snapshots(place, "commit", chain_id, key))


def upper_folder(mount_command: str) -> Path:
    """Where what is written to a snapshot lies, by the command that would mount it."""
    words = shlex.split(mount_command)
    for option in words[-1].split(","):
        name, _, value = option.partition("=")
        if name == "upperdir":
            return Path(value)
    # The lowest layer is a bind mount: `mount -t bind SOURCE TARGET -o OPTIONS`.
    return Path(words[words.index("bind") + 1])


def _snapshots(place: Place, *arguments: str) -> list[str]:
    return ctr(place, "snapshots", "--snapshotter", _SNAPSHOTTER, *arguments)


def _require_built(images: Sequence[str]) -> None:
    missing = [image for image in images if not succeeds(["buildah", "inspect", "--type", "image", image])]
    if missing:
        raise DevclusterError(f"not in buildah's storage: {', '.join(missing)}; `make images` builds them")


def _built_image(name: str) -> BuiltImage:
    described = json.loads(output(["buildah", "inspect", "--type", "image", name]))
    manifest, config = described["Manifest"].encode(), described["Config"].encode()
    storage = Path(json.loads(output(["buildah", "info"]))["store"]["GraphRoot"])
    return BuiltImage(name, manifest, config, _layer_folders(storage, described["FromImageID"]))


def _layer_folders(storage: Path, image_id: str) -> list[Path]:
    """From the records of containers/storage: each layer names the one below it."""
    images = _by_id(storage / "overlay-images" / "images.json")
    layers = _by_id(storage / "overlay-layers" / "layers.json")
    folders, layer = [], images[image_id]["layer"]
    while layer:
        folders.append(storage / "overlay" / layer / "diff")
        layer = layers[layer].get("parent")
    return folders[::-1]


def _by_id(file: Path) -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in json.loads(file.read_text())}
