"""The devcluster's control plane: what it serves, that clusters keep apart, and that nothing of them is left."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from finetune_devcluster import Cluster, DevclusterError, leftovers, network
from finetune_devcluster.processes import Identity, running
from support_wait import eventually

CONTROL_PLANE = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A control plane that a test may maltreat; not started yet."""
    own = Cluster(f"own-{uuid.uuid4().hex[:8]}", tmp_path, node=False)
    yield own
    own.down()


def answer(cluster: Cluster, *arguments: str) -> str:
    done = cluster.kubectl(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pids(cluster: Cluster) -> dict[str, int | None]:
    return {state.name: state.pid for state in cluster.status()}


def address(cluster: Cluster) -> str:
    joined = network.find(cluster.layout.name, cluster.layout.state)
    assert joined
    return joined.cluster_ip


def devcluster(cluster: Cluster, command: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "finetune_devcluster.main", command, "--name", cluster.layout.name, *options]


def environment(cluster: Cluster) -> dict[str, str]:
    return os.environ | {"DEVCLUSTER_HOME": str(cluster.layout.home)}


def assert_nothing_is_left(cluster: Cluster, once_running: list[Identity]) -> None:
    assert [identity for identity in once_running if identity.is_alive()] == []
    assert not (network.NAMESPACES / cluster.namespace).exists()
    assert network.find(cluster.layout.name, cluster.layout.state) is None
    assert not cluster.layout.state.exists()


def test_the_api_server_says_that_it_is_ready(cluster: Cluster) -> None:
    assert answer(cluster, "get", "--raw", "/readyz") == "ok"


def test_the_server_reports_the_version_that_go_mod_pins(cluster: Cluster) -> None:
    versions = json.loads(answer(cluster, "version", "--output=json"))
    assert versions["serverVersion"]["gitVersion"] == versions["clientVersion"]["gitVersion"]
    assert versions["serverVersion"]["minor"] == "36"


def test_the_node_registers_with_its_address_and_gets_ready(cluster: Cluster) -> None:
    (node,) = json.loads(answer(cluster, "get", "nodes", "--output=json"))["items"]
    assert {"type": "InternalIP", "address": address(cluster)} in node["status"]["addresses"]
    assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"


def test_a_new_namespace_gets_its_service_account_and_the_root_certificate(cluster: Cluster) -> None:
    answer(cluster, "create", "namespace", "fresh")
    find_account = ("get", "serviceaccount", "default", "--namespace=fresh")
    eventually(lambda: cluster.kubectl(*find_account).returncode == 0, message="default service account")
    find_certificate = ("get", "configmap", "kube-root-ca.crt", "--namespace=fresh", "--output=json")
    eventually(lambda: cluster.kubectl(*find_certificate).returncode == 0, message="kube-root-ca.crt")
    published = json.loads(answer(cluster, *find_certificate))["data"]["ca.crt"]
    assert published == (cluster.layout.certificates / "ca.crt").read_text()


def test_a_deleted_namespace_is_gone_with_what_was_in_it(cluster: Cluster) -> None:
    answer(cluster, "create", "namespace", "doomed")
    answer(cluster, "create", "configmap", "thing", "--namespace=doomed")
    answer(cluster, "delete", "namespace", "doomed", "--timeout=180s")
    assert "not found" in cluster.kubectl("get", "configmap", "thing", "--namespace=doomed").stderr


def test_children_of_a_deleted_owner_are_collected(cluster: Cluster) -> None:
    answer(cluster, "create", "deployment", "owner", "--image=none", "--replicas=0")
    eventually(lambda: answer(cluster, "get", "replicasets", "--selector=app=owner", "--output=name"))
    answer(cluster, "delete", "deployment", "owner")
    eventually(lambda: not answer(cluster, "get", "replicasets", "--selector=app=owner", "--output=name"))


def test_a_service_accounts_token_is_known_but_may_do_nothing(cluster: Cluster) -> None:
    token = answer(cluster, "create", "token", "default").strip()
    server = ("--kubeconfig=/dev/null", f"--server=https://{address(cluster)}:6443", f"--token={token}")
    authority = f"--certificate-authority={cluster.layout.certificates / 'ca.crt'}"
    refused = cluster.kubectl(*server, authority, "get", "secrets").stderr
    assert 'User "system:serviceaccount:default:default" cannot list resource "secrets"' in refused


def test_up_on_a_running_cluster_changes_nothing(cluster: Cluster) -> None:
    before, kubeconfig = pids(cluster), cluster.kubeconfig.read_text()
    cluster.up()
    assert (pids(cluster), cluster.kubeconfig.read_text()) == (before, kubeconfig)


def test_up_starts_again_what_has_died(own_cluster: Cluster) -> None:
    before = pids(own_cluster.up())
    scheduler = running(own_cluster.layout.pid_file("kube-scheduler"))
    assert scheduler
    scheduler.signal(signal.SIGKILL)
    eventually(lambda: pids(own_cluster)["kube-scheduler"] is None)
    after = pids(own_cluster.up())
    assert after.pop("kube-scheduler") not in (None, before.pop("kube-scheduler"))
    assert after == before


def test_two_clusters_at_once_do_not_see_each_other(cluster: Cluster, own_cluster: Cluster) -> None:
    own_cluster.up()
    answer(own_cluster, "create", "namespace", "only-here")
    assert "not found" in cluster.kubectl("get", "namespace", "only-here").stderr
    assert set(pids(cluster).values()).isdisjoint(pids(own_cluster).values())
    assert address(cluster) != address(own_cluster)


def test_down_leaves_nothing(own_cluster: Cluster) -> None:
    own_cluster.up()
    found = [running(own_cluster.layout.pid_file(name)) for name in CONTROL_PLANE]
    assert None not in found
    own_cluster.down()
    assert_nothing_is_left(own_cluster, [identity for identity in found if identity])


def test_down_ends_the_pods(own_cluster: Cluster) -> None:
    own_cluster.node = True
    own_cluster.up()
    # Other tests' pods sleep on the same machine
    seconds = str(uuid.uuid4().int % 10**6 + 10**6)
    answer(own_cluster, "create", "deployment", "sleeper", "--image=none", "--", "sleep", seconds)
    found = eventually(lambda: sleepers(seconds), message="a pod that sleeps")
    own_cluster.down()
    assert_nothing_is_left(own_cluster, found)
    assert sleepers(seconds) == []


def sleepers(seconds: str) -> list[Identity]:
    found = [int(e) for e in os.listdir("/proc") if e.isdecimal() and command_line(int(e))[-1:] == [seconds]]
    return [identity for identity in map(Identity.of, found) if identity]


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def test_kept_state_is_served_again(own_cluster: Cluster) -> None:
    answer(own_cluster.up(), "create", "namespace", "kept")
    own_cluster.down(keep_state=True)
    answer(own_cluster.up(), "get", "namespace", "kept")


@pytest.mark.parametrize("seen", ["etcd", "kube-apiserver", "kube-scheduler"])
def test_down_cleans_up_after_an_up_that_was_killed(own_cluster: Cluster, seen: str) -> None:
    with subprocess.Popen(
        devcluster(own_cluster, "up", "--no-node"), env=environment(own_cluster), stderr=subprocess.DEVNULL
    ) as starting:
        eventually(lambda: own_cluster.layout.pid_file(seen).exists(), message=f"pid file of {seen}")
        starting.kill()
    started = [Identity.read(file) for file in own_cluster.layout.pid_files()]
    own_cluster.down()
    assert_nothing_is_left(own_cluster, [identity for identity in started if identity])


def test_up_prints_one_line_that_a_shell_evaluates(own_cluster: Cluster) -> None:
    command = devcluster(own_cluster, "up", "--no-node")
    done = subprocess.run(command, env=environment(own_cluster), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"export KUBECONFIG={own_cluster.kubeconfig}\n"


def test_exec_runs_inside_the_network_of_the_cluster(own_cluster: Cluster) -> None:
    own_cluster.up()
    command = devcluster(own_cluster, "exec", "--", "ip", "-json", "address", "show", "dev", "eth0")
    done = subprocess.run(command, env=environment(own_cluster), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["addr_info"][0]["local"] == address(own_cluster)


def test_a_component_that_dies_is_reported_with_the_end_of_its_log(own_cluster: Cluster) -> None:
    own_cluster.layout.make_folders()
    own_cluster.layout.etcd_data.write_text("where a folder should be")
    with pytest.raises(
        DevclusterError, match=r"(?s)etcd died; the last \d+ lines of .*/logs/etcd\.log:\n.*not a directory"
    ):
        own_cluster.up()


def test_a_name_that_another_folders_cluster_has_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    namesake = Cluster(cluster.layout.name, tmp_path, node=False)
    with pytest.raises(DevclusterError, match="choose another --name"):
        namesake.up()
    namesake.down()
    assert answer(cluster, "get", "--raw", "/readyz") == "ok"


@contextmanager
def private_mounts(*mount: str) -> Iterator[subprocess.Popen[bytes]]:
    """A sleeping process in a mount namespace of its own, after it has run `mount` there."""
    script = ["sh", "-c", '"$@" && exec sleep infinity', "sh", *mount]
    with subprocess.Popen(["unshare", "--mount", "--propagation", "private", *script]) as process:
        try:
            eventually(lambda: command_line(process.pid)[:1] == ["sleep"], message=f"{mount} in its namespace")
            yield process
        finally:
            process.kill()


def test_only_processes_with_a_volume_of_the_cluster_are_taken_for_pods(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "copied").mkdir()
    # A volume in a pod, and a host's mount that a service with its own mount namespace has a copy of.
    mount_away = ["mount", "--bind", str(tmp_path / "volume"), "/mnt"]
    mount_below = ["mount", "--bind", str(tmp_path / "volume"), str(tmp_path / "copied")]
    with private_mounts(*mount_away) as pod, private_mounts(*mount_below), private_mounts("true"):
        found = leftovers.processes(None, tmp_path)
        assert [identity.pid for identity in found] == [pod.pid]
