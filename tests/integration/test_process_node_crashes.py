"""What becomes of pods when a component of the cluster is killed and started again."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_devcluster import Cluster
from finetune_devcluster.processes import kill, running
from support_pods import Space, pod, processes_with, python
from support_wait import eventually


@pytest.fixture
def own_space(tmp_path: Path) -> Iterator[Space]:
    """In a cluster of the test's own, whose components it may kill."""
    with Cluster(f"restart-{os.getpid()}", tmp_path) as cluster:
        space = Space(cluster, "restart")
        space.create()
        yield space


def kill_component(cluster: Cluster, name: str) -> None:
    identity = running(cluster.layout.pid_file(name))
    assert identity
    # Returns when it is gone: the kernel takes a moment, in which `up` would count it as running.
    kill([identity])


def test_pods_live_through_crashes_of_the_api_server_and_by_their_policy_of_the_node(own_space: Space) -> None:
    cluster, marker = own_space.cluster, f"marker-{uuid.uuid4().hex}"
    sleeper = python(f"import time; time.sleep(600)  # {marker}")
    own_space.apply(pod("always", sleeper, restartPolicy="Always"), pod("never", sleeper))
    assert own_space.output(pod("finished", python("print('done')"))) == "done\n"
    for name in ("always", "never"):
        own_space.await_phase(name, "Running")

    kill_component(cluster, "kube-apiserver")
    cluster.up()
    assert own_space.output(pod("later", python("print('served again')"))) == "served again\n"
    assert own_space.restarts("always") == 0

    kill_component(cluster, "node")
    eventually(lambda: not processes_with(marker))
    cluster.up()
    own_space.await_phase("never", "Failed")
    eventually(lambda: own_space.restarts("always") == 1 and own_space.phase("always") == "Running")
    assert own_space.get("pod", "never")["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137
    assert own_space.phase("finished") == "Succeeded"
    # The API server finds out with its first request that its connection to the node has died.
    eventually(lambda: cluster.kubectl("-n", own_space.name, "logs", "finished").stdout == "done\n")
