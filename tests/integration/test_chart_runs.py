"""The operator runs as the chart says, in a restricted namespace and with no more rights than the chart gives."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from chart import CHART, NAMESPACE, RELEASE, ROOT, helm
from finetune_devcluster import Cluster
from support_wait import eventually
from wrong_manifests import valid_manifest

SUSPENDED = ("wait", "finetunejob", "--all", "--for=condition=Suspended", "--timeout=180s")


@pytest.fixture(scope="module")
def node_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose node runs the operator's pod."""
    with Cluster(f"chart-runs-{os.getpid()}", tmp_path_factory.mktemp("cluster")) as cluster:
        expect(cluster, "apply", "-f", str(ROOT / "deploy" / "namespace.yaml"))
        for team in ("team-a", "team-b"):
            expect(cluster, "create", "namespace", team)
        yield cluster


def expect(cluster: Cluster, *arguments: str, stdin: str | None = None) -> str:
    done = cluster.kubectl(*arguments, input=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def deploy(cluster: Cluster, *values: str | Path) -> None:
    """Install or upgrade, and wait until the operator is ready."""
    command = ("upgrade", "--install", RELEASE, CHART, "--namespace", NAMESPACE, "--wait", "--timeout=240s", *values)
    done = helm(*command, environment=cluster.client_environment())
    assert done.returncode == 0, done.stderr + expect(cluster, "logs", f"deployment/{RELEASE}", "-n", NAMESPACE)


def create_suspended_job(cluster: Cluster, name: str, namespace: str) -> None:
    manifest = valid_manifest(name)
    manifest["spec"]["suspend"] = True
    expect(cluster, "create", "--namespace", namespace, "-f", "-", stdin=json.dumps(manifest))


def conditions(cluster: Cluster, name: str, namespace: str) -> str:
    return expect(cluster, "get", "finetunejob", name, "-n", namespace, "--output=jsonpath={.status.conditions}")


def test_an_installed_operator_becomes_ready_and_takes_up_jobs(node_cluster: Cluster) -> None:
    deploy(node_cluster)
    create_suspended_job(node_cluster, "anywhere", "default")
    assert "condition met" in expect(node_cluster, *SUSPENDED, "-n", "default")


def test_helms_test_passes_where_the_operator_is_ready_and_leaves_nothing(node_cluster: Cluster) -> None:
    deploy(node_cluster)
    done = helm("test", RELEASE, "--namespace", NAMESPACE, "--logs", environment=node_cluster.client_environment())
    assert done.returncode == 0, done.stderr + done.stdout
    assert "is ready" in expect(node_cluster, "get", "events", "-n", NAMESPACE) + done.stdout
    pods = ("get", "pods", "-n", NAMESPACE)
    eventually(lambda: f"{RELEASE}-test" not in expect(node_cluster, *pods), message="the test's pod is gone")


def test_a_namespaced_operator_takes_up_jobs_of_its_namespaces_only(node_cluster: Cluster) -> None:
    deploy(node_cluster)
    deploy(node_cluster, "--values", CHART / "ci" / "namespaced-values.yaml")
    create_suspended_job(node_cluster, "outside", "default")
    create_suspended_job(node_cluster, "inside", "team-a")
    assert "condition met" in expect(node_cluster, *SUSPENDED, "-n", "team-a")
    assert conditions(node_cluster, "outside", "default") == ""
