"""Files that the process node gives to containers: atomic volumes, mount plans, claims' volumes."""

import os
from pathlib import Path
from typing import Any

import pytest

from finetune_devcluster.node import atomic_files, launcher
from finetune_devcluster.node.atomic_files import FileContent
from finetune_devcluster.node.mounts import container_mounts, project_folders
from finetune_devcluster.node.provisioner import PROVISIONER, volume_for
from finetune_devcluster.node.volumes import Volume


def content(text: str, mode: int = 0o644) -> FileContent:
    return FileContent(text.encode(), mode)


def visible(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith("..")
    }


def test_files_are_replaced_all_at_once_through_one_link(tmp_path: Path) -> None:
    assert atomic_files.write(tmp_path, {"a": content("1"), "b": content("1")})
    first = (tmp_path / "..data").resolve()
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert atomic_files.write(tmp_path, {"a": content("2"), "c": content("2")})
    assert (tmp_path / "a").read_text() == "2"
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("..")) == ["a", "c"]
    assert not first.exists()


def test_equal_files_are_not_written_again(tmp_path: Path) -> None:
    payload = {"a": content("1", 0o400), "deep/er": content("2")}
    assert atomic_files.write(tmp_path, payload)
    assert not atomic_files.write(tmp_path, payload)
    assert atomic_files.write(tmp_path, payload | {"a": content("1", 0o444)})
    assert (tmp_path / "deep" / "er").read_text() == "2"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o444


def test_a_reader_that_holds_the_old_file_open_keeps_reading_it(tmp_path: Path) -> None:
    atomic_files.write(tmp_path, {"a": content("old")})
    with (tmp_path / "a").open() as held:
        atomic_files.write(tmp_path, {"a": content("new")})
        assert held.read() == "old"


def mounts(
    *entries: dict[str, Any], files: dict[str, Path] | None = None, **volumes: Volume
) -> dict[str, dict[str, Any]]:
    found = container_mounts({"volumeMounts": list(entries)}, volumes, files or {}, {"POD": "p-0"})
    return {mount["target"]: mount for mount in found}


def test_outer_mount_points_come_before_inner_ones() -> None:
    data = Volume(Path("/data"))
    entries = [{"name": "data", "mountPath": path} for path in ("/job/checkpoints/new", "/job", "/job/checkpoints/")]
    assert list(mounts(*entries, data=data)) == ["/job", "/job/checkpoints", "/job/checkpoints/new"]


@pytest.mark.parametrize(
    ("volume", "entry", "expected"),
    [
        (Volume(Path("/v")), {}, False),
        (Volume(Path("/v")), {"readOnly": True}, True),
        (Volume(Path("/v"), read_only=True), {"readOnly": False}, True),
    ],
)
def test_read_only_comes_from_the_mount_or_the_volume(volume: Volume, entry: dict[str, Any], expected: bool) -> None:
    assert mounts({"name": "v", "mountPath": "/m", **entry}, v=volume)["/m"]["readOnly"] is expected


def test_a_sub_path_may_hold_variables() -> None:
    entry = {"name": "v", "mountPath": "/m", "subPathExpr": "logs/$(POD)"}
    assert mounts(entry, v=Volume(Path("/v")))["/m"]["subPath"] == "logs/p-0"


def test_a_mount_of_the_spec_takes_the_place_of_the_nodes_own_file() -> None:
    entry = {"name": "v", "mountPath": "/etc/hosts", "subPath": "hosts"}
    found = mounts(entry, v=Volume(Path("/v")), files={"/etc/hosts": Path("/own"), "/etc/hostname": Path("/name")})
    assert (found["/etc/hosts"]["source"], found["/etc/hostname"]["source"]) == ("/v", "/name")


def test_a_sub_path_is_made_inside_its_volume(tmp_path: Path) -> None:
    assert launcher.sub_path(str(tmp_path), "a/b") == str(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_sub_path_that_leads_out_of_its_volume_is_refused(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "out").symlink_to("/etc")
    with pytest.raises(launcher.LaunchError, match="leads out of its volume"):
        launcher.sub_path(str(volume), "out/passwd")


def test_a_command_is_looked_up_on_the_path_of_the_container(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        (folder / "tool").touch(mode=0o755)
    (folders[0] / "data").touch(mode=0o644)
    path = ":".join(map(str, folders))
    assert launcher.find_command("tool", path) == str(folders[0] / "tool")
    assert launcher.find_command(str(folders[1] / "tool"), "") == str(folders[1] / "tool")
    for name, message in {
        "data": "permission denied",
        "no": "executable file not found",
        "/no/where": "no such file",
    }.items():
        with pytest.raises(launcher.LaunchError, match=message):
            launcher.find_command(name, path)


def test_the_volume_of_a_claim_is_reserved_for_it() -> None:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "5Gi"}}}
    claim = {"metadata": {"name": "job", "namespace": "ml", "uid": "42"}, "spec": spec}
    volume = volume_for(claim, Path("/state/volumes/42"))
    assert volume["metadata"]["annotations"] == {"pv.kubernetes.io/provisioned-by": PROVISIONER}
    assert volume["spec"]["claimRef"]["uid"] == "42"
    assert (volume["spec"]["capacity"], volume["spec"]["accessModes"]) == ({"storage": "5Gi"}, ["ReadWriteMany"])
    assert volume["spec"]["hostPath"]["path"] == "/state/volumes/42"


def test_a_project_that_the_containers_own_tmp_would_hide_is_mounted() -> None:
    folders = [Path("/tmp/checkout"), Path("/opt/checkout"), Path("/run/venv"), Path("/")]
    assert project_folders(folders) == {"/tmp/checkout": Path("/tmp/checkout"), "/run/venv": Path("/run/venv")}
