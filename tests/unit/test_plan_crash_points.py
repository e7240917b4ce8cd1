"""The operator is killed after each single write of a job's life: the outcome must be that of an undisturbed run."""

from __future__ import annotations

import pytest

from plan_scenarios import SCENARIOS, a_run
from plan_simulation import Cluster, timeless


def made_once(cluster: Cluster) -> dict[str, int]:
    """How often each Job and claim was created; the others are kept level and may come and go."""
    return {name: count for (kind, name), count in cluster.created.items() if kind in ("Job", "PersistentVolumeClaim")}


@pytest.mark.parametrize("act_before_restart", [False, True], ids=["restarts at once", "restarts after the pods ended"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_killed_operator_ends_where_an_undisturbed_one_does(scenario: str, act_before_restart: bool) -> None:
    undisturbed = a_run(scenario)
    assert undisturbed.writes >= 5
    for killed_after in range(undisturbed.writes):
        disturbed = a_run(scenario, killed_after=killed_after, act_before_restart=act_before_restart)
        assert timeless(disturbed) == timeless(undisturbed), f"killed after write {killed_after}"
        assert made_once(disturbed) == made_once(undisturbed), f"killed after write {killed_after}"


@pytest.mark.parametrize(
    ("scenario", "trained"),
    [
        ("everything succeeds and is served", ["qwen-train-0"]),
        ("training is pre-empted, then lost, then succeeds", ["qwen-train-0", "qwen-train-1", "qwen-train-2"]),
        ("training runs out of memory", ["qwen-train-0"]),
        ("prepare finds wrong data", []),
        ("training fails until its retries are used up", ["qwen-train-0", "qwen-train-1"]),
    ],
)
def test_training_jobs_are_created_once_for_each_attempt_and_no_more(scenario: str, trained: list[str]) -> None:
    cluster = a_run(scenario)
    made = {name: count for (kind, name), count in cluster.created.items() if kind == "Job" and "-train-" in name}
    assert made == dict.fromkeys(trained, 1)
