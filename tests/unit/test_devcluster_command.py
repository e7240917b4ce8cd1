"""The command `devcluster`, as far as it works without a cluster."""

import os
from pathlib import Path

import pytest

from finetune_devcluster import host
from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.layout import Layout
from finetune_devcluster.main import main, split_arguments


@pytest.mark.parametrize(
    ("arguments", "own", "passed_on"),
    [
        ("", "", ""),
        ("up --name a", "up --name a", ""),
        ("kubectl get pods", "kubectl", "get pods"),
        ("kubectl -n kube-system get pods", "kubectl", "-n kube-system get pods"),
        ("kubectl --name a -n b get pods", "kubectl --name a", "-n b get pods"),
        ("kubectl --name=a get pods", "kubectl --name=a", "get pods"),
        ("kubectl get pods --name=a", "kubectl", "get pods --name=a"),
        ("kubectl --help", "kubectl --help", ""),
        ("kubectl -- --help", "kubectl", "--help"),
        ("kubectl exec pod -- ls", "kubectl", "exec pod -- ls"),
        ("exec --name a -- ls -l", "exec --name a", "ls -l"),
        ("exec ls -- -l", "exec", "ls -- -l"),
    ],
)
def test_arguments_of_other_programs_are_passed_on_untouched(arguments: str, own: str, passed_on: str) -> None:
    assert split_arguments(arguments.split()) == (own.split(), passed_on.split())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEVCLUSTER_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("command", ["up", "down", "exec"])
def test_without_root_one_line_says_what_to_do(
    command: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main([command]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "sudo -E make cluster" in printed.err
    assert list(home.iterdir()) == []


def test_a_missing_program_is_named_with_its_debian_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DevclusterError, match=r"ip, mount, nsenter.*apt-get install iproute2 mount util-linux"):
        host.require_programs()


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a" * 41])
def test_a_name_that_cannot_name_a_namespace_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DevclusterError, match="--name: found"):
        Layout(tmp_path, name)


def test_kubectl_without_a_cluster_says_how_to_start_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kubectl", "--name", "absent", "get", "pods"]) == 1
    assert "devcluster up --name absent" in capsys.readouterr().err


def test_a_proxy_for_the_internet_is_not_used_for_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:3128")
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    monkeypatch.setenv("PROXYLESS", "kept")
    environment = host.environment_without_proxies()
    assert {"HTTPS_PROXY", "http_proxy"}.isdisjoint(environment)
    assert environment["PROXYLESS"] == "kept"
