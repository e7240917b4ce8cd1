"""Training goes on through an upgrade of the operator, and after its node was drained."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from finetune_devcluster import binaries
from job_driver import Driver, tiny_job
from real_cluster import Site
from real_install import values_of
from real_jobs import ROOT
from support_wait import eventually

STEPS = 300


def test_an_upgrade_of_the_operator_leaves_a_training_pod_alone(cluster: Site, operator: Driver, team: Driver) -> None:
    job = "upgraded"
    team.apply(_long_job(job))
    _await_step(team, job)
    before = _training_pod(team, job)
    old = _names(operator)
    # The id that an OpenShift cluster would assign, say: no user of that number exists in the image.
    changed = ("--set", "podSecurityContext.runAsUser=1000640000", "--set", "settings.resyncSeconds=60")
    chart = ("upgrade", "finetune-operator", str(ROOT / "charts/finetune-operator"), "--namespace", operator.namespace)
    cluster.helm(*chart, *values_of(cluster), *changed, "--wait", "--timeout", "120s")
    assert not old & _names(operator)
    assert _user_id(cluster, operator) == 1000640000
    after = _training_pod(team, job)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    team.await_condition(job, "Trained", timeout=900)
    assert team.status(job)["attempt"] == 0
    team.delete(job)


def test_a_drained_node_costs_no_more_than_a_step_of_training(cluster: Site, operator: Driver, team: Driver) -> None:
    job = "drained"
    team.apply(_long_job(job))
    _await_step(team, job)
    node = _training_pod(team, job)["spec"]["nodeName"]
    with _drained(cluster, node, f"job/{job}-train-0", team.namespace) as last_words:
        [saved] = re.findall(r"told to stop after step (\d+), which is saved", last_words)
    team.await_condition(job, "Trained", timeout=900)
    # The operator may have been evicted with the pod; it knows all the same that this was no failure.
    assert [attempt["reason"] for attempt in team.status(job)["attempts"]] == ["Preempted"]
    [resumed] = re.findall(r"train: resuming from step (\d+)", team.kubectl("logs", f"job/{job}-train-1"))
    assert resumed == saved
    assert 0 < int(saved) < STEPS
    assert team.status(job)["results"]["steps"] == STEPS
    team.delete(job)


@contextmanager
def _drained(cluster: Site, node: str, job: str, namespace: str) -> Iterator[str]:
    """The node is empty but for what tolerates that, and takes no new pod while the block runs; yields the log of the job's pod."""
    command = [str(binaries.ensure() / "kubectl"), "--namespace", namespace, "logs", "--follow", job]
    follow = subprocess.Popen(command, env=cluster.client_environment(), stdout=subprocess.PIPE, text=True)
    try:
        done = cluster.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s")
        assert done.returncode == 0, done.stderr
        yield follow.communicate(timeout=60)[0]
    finally:
        cluster.kubectl("uncordon", node)
        follow.kill()
        follow.wait()


def _long_job(name: str) -> dict[str, Any]:
    """Long enough to be disturbed on the way; checkpoints so far apart that a step that is lost shows."""
    manifest = tiny_job(name, steps=STEPS, serve=False)
    manifest["spec"]["checkpoints"] = {"steps": 150}
    manifest["spec"]["merge"] = {"enabled": False}
    return manifest


def _await_step(team: Driver, job: str) -> None:
    team.await_stage(job, "Training", timeout=600)
    eventually(lambda: team.status(job).get("progress", {}).get("step"), 300, f"{job} has done a step")


def _training_pod(team: Driver, job: str) -> dict[str, Any]:
    labels = f"finetune-operator.io/job={job},finetune-operator.io/stage=train"
    [pod] = json.loads(team.kubectl("get", "pods", "-l", labels, "-o", "json"))["items"]
    return dict(pod)


def _names(operator: Driver) -> set[str]:
    return set(operator.kubectl("get", "pods", "-l", "app.kubernetes.io/name=finetune-operator", "-o", "name").split())


def _user_id(cluster: Site, operator: Driver) -> int:
    command = ("exec", "deployment/finetune-operator", "--", "python", "-c", "import os; print(os.getuid())")
    return int(operator.kubectl(*command))
