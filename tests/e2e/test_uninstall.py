"""The chart is uninstalled while one job trains and another serves: nobody is stuck. Runs last: the operator is gone after it."""

from __future__ import annotations

import json

from job_driver import Driver, tiny_job
from real_cluster import Site
from real_install import readme_install, values_of
from support_wait import eventually

TRAINING, SERVING = "left-training", "left-serving"


def test_no_job_is_stuck_when_the_operator_is_gone(cluster: Site, operator: Driver, team: Driver) -> None:
    team.apply(tiny_job(SERVING, "Full", steps=10))
    team.apply(tiny_job(TRAINING, steps=400))
    team.await_condition(SERVING, "Served", timeout=900)
    team.await_stage(TRAINING, "Training", timeout=600)
    cluster.helm("uninstall", "finetune-operator", "--namespace", operator.namespace, "--wait", "--timeout", "60s")
    # What is there stays: the definition, the jobs, the model that is served, the training that runs.
    for job in (TRAINING, SERVING):
        manifest = json.loads(team.kubectl("get", "ftj", job, "-o", "json"))
        assert not manifest["metadata"].get("finalizers")
    team.kubectl("rollout", "status", f"deployment/{SERVING}", "--timeout=10s")
    for job in (TRAINING, SERVING):
        team.delete(job)
    for job in (TRAINING, SERVING):
        eventually(lambda job=job: team.children(job) == [], 180, f"nothing of {job} is left")  # type: ignore[misc]


def test_the_same_chart_can_be_installed_again(cluster: Site, operator: Driver) -> None:
    cluster.helm(*readme_install(), *values_of(cluster), "--wait", "--timeout", "90s")
    rolled_out = operator.kubectl("rollout", "status", "deployment/finetune-operator", "--timeout=60s")
    assert "successfully rolled out" in rolled_out
