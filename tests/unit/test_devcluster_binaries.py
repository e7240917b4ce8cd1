"""What is built, with which Go, and when it is built anew."""

import re
import shutil
from pathlib import Path

import pytest

from finetune_devcluster import binaries, toolchain
from finetune_devcluster.errors import DevclusterError

GO_MOD = "module x\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes v1.36.3 // indirect\n"


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "go.mod").write_text(GO_MOD)
    (tmp_path / "go.sum").write_text("k8s.io/kubernetes v1.36.3 h1:abc=\n")
    return tmp_path


def program(file: Path, script: str) -> Path:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go 1.26.0", (1, 26, 0)),
        ("module x\n\ngo 1.26\n", (1, 26)),
        ("module x\n\ngo 1.9.12\ntoolchain go1.30.0\n", (1, 9, 12)),
    ],
)
def test_the_needed_version_is_that_of_the_go_line(text: str, version: tuple[int, ...]) -> None:
    assert toolchain.required_version(text) == version


def test_a_go_mod_without_a_go_line_is_refused() -> None:
    with pytest.raises(DevclusterError, match="go VERSION"):
        toolchain.required_version("module x\n")


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.27rc1 linux/arm64", (1, 27)),
        ("go version go1.26.0 X:nocoverageredesign linux/amd64", (1, 26, 0)),
        ("go version devel +a1b2c3 Mon Jan 1 linux/amd64", None),
        ("", None),
    ],
)
def test_the_found_version_is_read_from_go_version(output: str, version: tuple[int, ...] | None) -> None:
    assert toolchain.printed_version(output) == version


@pytest.mark.parametrize(
    ("script", "enough"),
    [
        ("echo go version go1.26.0 linux/amd64", True),
        ("echo go version go1.30.1 linux/amd64", True),
        ("echo go version go1.25.9 linux/amd64", False),
        ("echo go version go1.9.9 linux/amd64", False),
        ("echo go version go1.26.0 linux/amd64; exit 1", False),
        # What `go` itself does: without GOTOOLCHAIN=local it speaks for the toolchain that it would download.
        ('test "$GOTOOLCHAIN" = local && echo go version go1.22.0 || echo go version go1.26.0', False),
    ],
)
def test_a_go_is_used_only_when_it_is_new_enough_itself(tmp_path: Path, script: str, enough: bool) -> None:
    assert toolchain.is_new_enough(program(tmp_path / "go", script), (1, 26, 0)) is enough


@pytest.mark.parametrize("changed", ["go.mod", "go.sum"])
def test_a_changed_pin_is_built_anew(module: Path, changed: str) -> None:
    before = binaries.cache_key(module, "linux/amd64")
    with (module / changed).open("a") as file:
        file.write("// one more line\n")
    assert binaries.cache_key(module, "linux/amd64") != before


def test_each_target_has_its_own_build(module: Path) -> None:
    assert binaries.cache_key(module, "linux/amd64") != binaries.cache_key(module, "linux/arm64")


def test_the_same_pins_find_the_same_build_wherever_they_lie(module: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(module, tmp_path / "copy")
    assert binaries.cache_key(module, "linux/amd64") == binaries.cache_key(copy, "linux/amd64")


@pytest.mark.parametrize("require", ["require k8s.io/kubernetes v1.36.3 // indirect", "\tk8s.io/kubernetes v1.36.3"])
def test_the_stamped_version_is_the_pinned_one(require: str) -> None:
    flags = binaries.linker_flags(f"module x\n\n{require}\n")
    stamped = dict(re.findall(r"-X k8s\.io/component-base/version\.(\w+)=(\S+)", flags))
    assert stamped == {"gitVersion": "v1.36.3", "gitMajor": "1", "gitMinor": "36"}


def test_go_mod_pins_every_program_as_a_tool() -> None:
    go_mod = (binaries.module_folder() / "go.mod").read_text()
    (block,) = re.findall(r"^tool \((.*?)^\)", go_mod, re.MULTILINE | re.DOTALL)
    assert sorted(block.split()) == sorted(tool.package for tool in binaries.TOOLS)


def test_only_programs_of_the_assets_folder_are_taken_from_it(tmp_path: Path) -> None:
    etcd = program(tmp_path / "etcd", "true")
    (tmp_path / "kubectl").write_text("not executable")
    program(tmp_path / "unrelated", "true")
    assert binaries.provided(str(tmp_path), binaries.TOOLS) == {"etcd": etcd}


@pytest.mark.parametrize("assets", [None, "", "/no/such/folder"])
def test_without_assets_nothing_is_provided(assets: str | None) -> None:
    assert binaries.provided(assets, binaries.TOOLS) == {}


def test_a_provided_program_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    etcd = program(assets / "etcd", "true")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = binaries.ensure(tuple(tool for tool in binaries.TOOLS if tool.name == "etcd"))
    assert (folder / "etcd").resolve() == etcd
