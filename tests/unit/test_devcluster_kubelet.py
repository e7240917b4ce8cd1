"""The real node's files, images and manifests, and what is taken back from the machine."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import tarfile
import tomllib
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_devcluster import binaries, host
from finetune_devcluster.components import POD_CIDR, SERVICE_CIDR
from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.kubelet import addons, archive, configuration, machine
from finetune_devcluster.kubelet.place import Place
from finetune_devcluster.layout import Layout


@pytest.fixture
def place(tmp_path: Path) -> Place:
    layout = Layout(tmp_path / "home", "unit")
    layout.make_folders()
    place = Place(layout)
    place.make_folders()
    return place


def test_the_nodes_go_mod_pins_its_programs_as_tools_or_holds_their_source() -> None:
    module = binaries.node_module_folder()
    (block,) = re.findall(r"^tool \((.*?)^\)", (module / "go.mod").read_text(), re.MULTILINE | re.DOTALL)
    pinned = [tool.package for tool in binaries.NODE_TOOLS if not tool.package.startswith("./")]
    assert sorted(block.split()) == sorted(pinned)
    own = [tool.package for tool in binaries.NODE_TOOLS if tool.package.startswith("./")]
    assert sorted(own) == sorted(f"./{file.parent.name}" for file in module.glob("*/main.go"))


def test_node_and_control_plane_are_of_one_version() -> None:
    flags = [binaries.linker_flags((folder / "go.mod").read_text()) for folder in _modules()]
    assert flags[0] == flags[1]


def _modules() -> list[Path]:
    return [binaries.module_folder(), binaries.node_module_folder()]


def test_a_changed_source_is_built_anew(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module x\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes v1.36.3\n")
    (tmp_path / "go.sum").touch()
    (tmp_path / "pause").mkdir()
    (tmp_path / "pause" / "main.go").write_text("package main\n")
    before = binaries.cache_key(tmp_path, "linux/amd64")
    (tmp_path / "pause" / "main.go").write_text("package main // changed\n")
    assert binaries.cache_key(tmp_path, "linux/amd64") != before


def test_containerd_keeps_everything_below_the_nodes_folder(place: Place) -> None:
    config = tomllib.loads(configuration.containerd(place, "overlayfs"))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    runc = cri["containerd"]["runtimes"]["runc"]["options"]["Root"]
    for path in (config["root"], config["state"], runc, cri["cni"]["conf_dir"]):
        assert Path(path).is_relative_to(place.root)
    assert cri["containerd"]["snapshotter"] == "overlayfs"
    assert cri["sandbox_image"] == configuration.PAUSE_IMAGE
    assert cri["netns_mounts_under_state_dir"]


def test_the_runtimes_socket_has_a_path_that_a_socket_can_have(tmp_path: Path) -> None:
    deep = Layout(tmp_path / ("x" * 200), "n" * 40)
    # sun_path of unix(7), with the ending that containerd gives its second socket
    assert len(f"{Place(deep).socket}.ttrpc") < 108


def test_pods_have_addresses_of_the_pod_network_kept_below_the_nodes_folder(place: Place) -> None:
    bridge, _ = json.loads(configuration.cni(place))["plugins"]
    assert Path(bridge["ipam"]["dataDir"]).is_relative_to(place.root)
    ((given,),) = bridge["ipam"]["ranges"]
    assert IPv4Network(given["subnet"]).subnet_of(IPv4Network(POD_CIDR))


def test_the_kubelet_asks_the_api_server_who_may_ask_it(place: Place) -> None:
    config = _kubelet(place)
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"] == {"mode": "Webhook"}
    assert config["clusterDNS"] == [configuration.DNS_SERVICE_IP]


def _kubelet(place: Place) -> dict[str, Any]:
    text = configuration.kubelet(place, "10.201.1.2", Path("/ca.crt"), Path("/k.crt"), Path("/k.key"))
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def test_the_dns_service_is_where_the_kubelet_sends_its_pods() -> None:
    services = [item for item in addons.dns() if item["kind"] == "Service"]
    assert [service["spec"]["clusterIP"] for service in services] == [configuration.DNS_SERVICE_IP]
    assert IPv4Address(configuration.DNS_SERVICE_IP) in IPv4Network(SERVICE_CIDR)


def test_every_volume_has_a_folder_of_its_own_and_is_local(tmp_path: Path) -> None:
    volumes = [item for item in addons.manifests(tmp_path)["items"] if item["kind"] == "PersistentVolume"]
    paths = [volume["spec"]["local"]["path"] for volume in volumes]
    assert len(set(paths)) == addons.VOLUMES == len(paths)
    assert paths == [str(folder) for folder in addons.volume_folders(tmp_path)]


def test_an_image_of_one_program_is_what_docker_save_writes(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"\x7fELF and more")
    archive.write(tmp_path / "pause.tar", "localhost/pause:1", program, "arm64")
    with tarfile.open(tmp_path / "pause.tar") as image:
        files = {entry.name: image.extractfile(entry).read() for entry in image.getmembers()}  # type: ignore[union-attr]
    [manifest] = json.loads(files["manifest.json"])
    assert manifest["RepoTags"] == ["localhost/pause:1"]
    config = json.loads(files[manifest["Config"]])
    [layer] = manifest["Layers"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(files[layer]).hexdigest()}"]
    assert (config["architecture"], config["config"]["Entrypoint"]) == ("arm64", ["/pause"])


def test_only_groups_of_the_clusters_containers_are_removed(tmp_path: Path) -> None:
    ours = tmp_path / "memory" / "k8s.io" / "a1" / "below"
    others = tmp_path / "memory" / "k8s.io" / "b2"
    alone = tmp_path / "pids" / "k8s.io" / "a1"
    for folder in (ours, others, alone):
        folder.mkdir(parents=True)
    machine.remove_groups(tmp_path, ["a1"])
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["memory", "memory/k8s.io", "memory/k8s.io/b2", "pids"]


def test_the_machine_is_remembered_as_it_was_before_the_first_start(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, plugins = _machine(tmp_path, monkeypatch)
    machine.remember(place)
    (settings / "kernel" / "panic").write_text("10")
    machine.remember(place)
    plugins.mkdir(parents=True)
    for name in ("kubelet.sock", "stand-ins.sock", "kubelet_internal_checkpoint"):
        (plugins / name).touch()
    machine.restore(place)
    assert (settings / "kernel" / "panic").read_text() == "1"
    assert not plugins.parent.exists()


def test_where_no_kubelet_was_started_nothing_is_taken_back(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plugins = _machine(tmp_path, monkeypatch)
    plugins.mkdir(parents=True)
    (plugins / "kubelet.sock").touch()
    machine.restore(place)
    assert (plugins / "kubelet.sock").exists()


def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Folders that stand in for /proc/sys and the kubelet's."""
    settings, plugins = tmp_path / "sys", tmp_path / "lib" / "kubelet" / "device-plugins"
    (settings / "kernel").mkdir(parents=True)
    (settings / "kernel" / "panic").write_text("1")
    plugins.parent.parent.mkdir()
    monkeypatch.setattr(machine, "_PROC_SYS", settings)
    monkeypatch.setattr(machine, "DEVICE_PLUGINS", plugins)
    return settings, plugins


def test_the_sockets_of_shims_are_those_that_the_containers_name(place: Place) -> None:
    bundle = place.containers / "io.containerd.runtime.v2.task" / "k8s.io" / "a1"
    bundle.mkdir(parents=True)
    (bundle / "address").write_text("unix:///run/containerd/s/0123")
    (bundle.parent / "half-made").mkdir()
    assert machine.shim_sockets(place) == [Path("/run/containerd/s/0123")]


def test_a_second_kubelet_is_refused_while_the_first_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DEVICE_PLUGINS", tmp_path)
    machine.require_no_other_kubelet()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "kubelet.sock"))
        server.listen()
        with pytest.raises(DevclusterError, match="another kubelet"):
            machine.require_no_other_kubelet()


def test_what_a_real_node_lacks_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = {"runc", "/usr/lib/cni/bridge", "/usr/lib/cni/portmap"}
    monkeypatch.setattr(host.shutil, "which", lambda name: None if name in lacking else f"/bin/{name}")
    assert host.missing_node_packages() == ["containernetworking-plugins", "runc"]
    with pytest.raises(DevclusterError, match="apt-get install containernetworking-plugins runc"):
        host.require_node_programs()
