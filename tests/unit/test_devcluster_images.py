"""Images of buildah's storage as containerd's snapshots."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from finetune_devcluster.kubelet import archive, images


def test_snapshots_are_named_as_the_image_specification_says() -> None:
    both = hashlib.sha256(b"sha256:aa sha256:bb").hexdigest()
    third = hashlib.sha256(f"sha256:{both} sha256:cc".encode()).hexdigest()
    assert images.chain_ids(["sha256:aa", "sha256:bb", "sha256:cc"]) == [
        "sha256:aa",
        f"sha256:{both}",
        f"sha256:{third}",
    ]


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("mount -t bind /s/1/fs /none -o rw,rbind", "/s/1/fs"),
        (
            "mount -t overlay overlay /none -o index=off,workdir=/s/2/work,upperdir=/s/2/fs,lowerdir=/s/1/fs\n",
            "/s/2/fs",
        ),
    ],
)
def test_what_is_written_to_a_snapshot_lies_where_its_mount_says(command: str, folder: str) -> None:
    assert images.upper_folder(command) == Path(folder)


def test_layers_are_found_from_the_lowest_up(tmp_path: Path) -> None:
    layers = [{"id": "base"}, {"id": "torch", "parent": "base"}, {"id": "ours", "parent": "torch"}, {"id": "other"}]
    for name, records in (("images", [{"id": "image", "layer": "ours"}]), ("layers", layers)):
        folder = tmp_path / f"overlay-{name}"
        folder.mkdir()
        (folder / f"{name}.json").write_text(json.dumps(records))
    found = images._layer_folders(tmp_path, "image")
    assert found == [tmp_path / "overlay" / name / "diff" for name in ("base", "torch", "ours")]


def test_an_image_without_its_layers_names_the_image_and_holds_what_its_digests_say(tmp_path: Path) -> None:
    manifest, config = b'{"mediaType": "kind"}', b'{"os": "linux"}'
    archive.write_index(tmp_path / "image.tar", "localhost/x:1", manifest, config)
    with tarfile.open(tmp_path / "image.tar") as written:
        files = {entry.name: written.extractfile(entry).read() for entry in written.getmembers()}  # type: ignore[union-attr]
    [described] = json.loads(files["index.json"])["manifests"]
    assert described["annotations"]["io.containerd.image.name"] == "localhost/x:1"
    assert described["mediaType"] == "kind"
    for blob in (manifest, config):
        assert files[f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}"] == blob
