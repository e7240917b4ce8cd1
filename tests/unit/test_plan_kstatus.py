"""What Flux and Helm's --wait make of a job: never done too early, never under way for ever after a failure."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.api.crd import UNSEEN
from kstatus import Verdict, compute
from plan_scenarios import SCENARIOS, a_run


def is_true(job: dict[str, Any], condition: str) -> bool:
    found = {entry["type"]: entry["status"] for entry in job["status"].get("conditions", [])}
    return found.get(condition) == "True"


def is_observed(job: dict[str, Any]) -> bool:
    return bool(job["status"]["observedGeneration"] == job["metadata"]["generation"])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_job_is_current_exactly_when_it_is_ready_and_all_that_was_asked_for_was_reached(scenario: str) -> None:
    for job in a_run(scenario).history:
        done = is_observed(job) and is_true(job, "Ready") and is_true(job, "Complete")
        assert (compute(job) is Verdict.CURRENT) == done, job


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_job_is_failed_exactly_when_it_cannot_go_on(scenario: str) -> None:
    for job in a_run(scenario).history:
        failed = is_observed(job) and is_true(job, "Failed")
        assert (compute(job) is Verdict.FAILED) == failed, job


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_job_that_has_come_to_rest_is_current_or_failed_or_suspended(scenario: str) -> None:
    cluster = a_run(scenario)
    last = cluster.history[-1]
    expected = {Verdict.IN_PROGRESS} if cluster.spec.get("suspend") else {Verdict.CURRENT, Verdict.FAILED}
    assert compute(last) in expected


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_failed_job_is_never_under_way_again(scenario: str) -> None:
    verdicts = [compute(job) for job in a_run(scenario).history]
    if Verdict.FAILED in verdicts:
        assert set(verdicts[verdicts.index(Verdict.FAILED) :]) == {Verdict.FAILED}


def test_the_scenarios_hold_jobs_of_every_verdict_and_edits_that_are_not_observed_yet() -> None:
    jobs = [job for scenario in SCENARIOS for job in a_run(scenario).history]
    assert {compute(job) for job in jobs} == {Verdict.IN_PROGRESS, Verdict.CURRENT, Verdict.FAILED}
    unobserved = [job for job in jobs if not is_observed(job)]
    assert unobserved
    assert {compute(job) for job in unobserved} == {Verdict.IN_PROGRESS}


def test_a_job_that_no_operator_has_seen_is_under_way() -> None:
    assert compute({"metadata": {"generation": 1}, "status": UNSEEN}) is Verdict.IN_PROGRESS


def test_a_job_that_is_being_deleted_is_terminating() -> None:
    job = a_run("nothing is served").history[-1]
    job["metadata"]["deletionTimestamp"] = "2026-11-22T03:00:00Z"
    assert compute(job) is Verdict.TERMINATING
