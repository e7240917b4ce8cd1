"""The chart's NetworkPolicies in namespaces that deny everything else: what has to get through does, and nothing else."""

from __future__ import annotations

import json
import os

import pytest

from job_driver import Driver
from real_cluster import Site
from real_jobs import ASKERS, QWEN, as_list, deny_everything, script_pod

pytestmark = pytest.mark.usefixtures("tutorials")

# A network learns of a new pod a moment after it was started: what gets through for ten seconds gets through.
_CONNECT = """
import select, socket, sys
for attempt in range(10):
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
    except OSError as error:
        sys.exit(print(f"refused: {error}"))
    select.select([], [], [], 1)
print("connected")
"""
PROGRESS, METRICS = 8443, 8080


@pytest.fixture(scope="module", autouse=True)
def enforced(cluster: Site, operator: Driver, tutorials: None) -> None:
    """A namespace that denies everything shows whether the cluster's network obeys at all."""
    if not os.environ.get("E2E_CONTEXT"):
        return  # a devcluster's does
    cluster.kubectl("apply", "-f", "-", input=as_list([deny_everything(ASKERS)]))
    reached = _from_askers(cluster, "probe", _address(operator), METRICS)
    cluster.kubectl("--namespace", ASKERS, "delete", "networkpolicy", "default-deny")
    if reached:
        pytest.skip("the network of this cluster does not enforce NetworkPolicies")


def test_a_stranger_reaches_the_operators_metrics_but_not_its_progress_port(cluster: Site, operator: Driver) -> None:
    assert _from_askers(cluster, "metrics", _address(operator), METRICS)
    assert not _from_askers(cluster, "progress", _address(operator), PROGRESS)


def test_a_served_model_reaches_neither_the_operator_nor_the_api_server(operator: Driver, team: Driver) -> None:
    for port in (PROGRESS, METRICS):
        assert not _from_serving_pod(team, _address(operator), port)
    api_server = json.loads(operator.kubectl("get", "service", "kubernetes", "--namespace", "default", "-o", "json"))
    assert not _from_serving_pod(team, api_server["spec"]["clusterIP"], 443)


def test_training_told_the_operator_how_far_it_is(team: Driver) -> None:
    progress = team.status(QWEN)["progress"]
    assert progress["step"] == progress["totalSteps"] > 0


def _address(operator: Driver) -> str:
    service = json.loads(operator.kubectl("get", "service", "finetune-operator", "-o", "json"))
    return str(service["spec"]["clusterIP"])


def _from_askers(cluster: Site, name: str, host: str, port: int) -> bool:
    pod = script_pod(f"connect-{name}", cluster.image("operator"), _CONNECT, host, str(port))
    done = cluster.kubectl("apply", "-f", "-", input=as_list([pod]))
    assert done.returncode == 0, done.stderr
    askers = Driver(cluster, ASKERS)
    askers.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/connect-{name}", "--timeout=120s")
    return "connected" in askers.kubectl("logs", f"connect-{name}")


def _from_serving_pod(team: Driver, host: str, port: int) -> bool:
    command = ("exec", f"deployment/{QWEN}", "--", "python", "-c", _CONNECT, host, str(port))
    return "connected" in team.kubectl(*command)
