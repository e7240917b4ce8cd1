"""ArgoCD's verdicts on FineTuneJobs, and the examples for it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from argocd import CUSTOMIZATION, FOLDER, SCRIPT, acted, action_script, actions, health
from finetune_operator.api import conditions
from finetune_operator.api.job import FineTuneJob
from finetune_operator.api.status import FineTuneJobStatus
from plan_scenarios import SCENARIOS, a_run

_STAGES = ("Queued", "Suspended", "Preparing", "Training", "Retrying", "Merging", "Deploying", "Serving", "Completed")
_TROUBLES = (conditions.FAILED, conditions.NAME_TAKEN, conditions.CLAIM_NOT_FOUND, conditions.NOT_STARTING)
_ABNORMAL = ("Suspended", "Reconciling", "Stalled")
CASES = yaml.safe_load((CUSTOMIZATION / "health_test.yaml").read_text())["tests"]
ACTIONS = yaml.safe_load((CUSTOMIZATION / "actions" / "action_test.yaml").read_text())
FIXTURES = sorted(path.name for path in (CUSTOMIZATION / "testdata").iterdir())


def fixture(name: str) -> dict[str, Any]:
    job: dict[str, Any] = yaml.safe_load((CUSTOMIZATION / "testdata" / name).read_text())
    return job


@pytest.mark.parametrize("case", CASES, ids=lambda case: Path(case["inputPath"]).stem)
def test_a_job_has_the_health_and_message_that_its_conditions_say(case: dict[str, Any]) -> None:
    assert health(fixture(Path(case["inputPath"]).name)) == case["healthStatus"]


def test_every_fixture_is_used_and_named_by_its_health() -> None:
    verdicts = {Path(case["inputPath"]).name: case["healthStatus"]["status"] for case in CASES}
    assert sorted(verdicts) == FIXTURES
    assert [name for name, status in verdicts.items() if not name.startswith(status.lower())] == []


def test_there_is_a_fixture_for_every_stage_and_every_condition() -> None:
    status = [condition for name in FIXTURES for condition in (fixture(name).get("status") or {}).get("conditions", [])]
    stages = {condition["reason"] for condition in status if condition["type"] == "Ready"}
    assert stages >= {*_STAGES, *_TROUBLES}
    held = {condition["type"] for condition in status if condition["status"] == "True"}
    assert held == {"Ready", "Prepared", "Trained", "Merged", "Served", "Complete", "Failed", *_ABNORMAL}


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_is_a_job_as_the_api_holds_it(name: str) -> None:
    job = FineTuneJob.model_validate(fixture(name))
    known = FineTuneJobStatus.model_validate(job.status or {}).to_manifest()
    assert (job.status or {}).items() <= known.items()


def reasons(first: str, last: str) -> list[str]:
    """Reasons as api/conditions.py lists them, from one to another."""
    names = [name for name in vars(conditions) if name.isupper()]
    chosen = names[names.index(first) : names.index(last) + 1]
    return [getattr(conditions, name) for name in chosen]


@pytest.mark.parametrize("reason", [*reasons("INVALID_SPEC", "DEADLINE_EXCEEDED"), conditions.CLAIM_NOT_FOUND])
def test_a_failure_is_degraded_whatever_its_reason_and_says_it(reason: str) -> None:
    job = fixture("degraded_source_unreachable.yaml")
    for condition in job["status"]["conditions"]:
        condition["reason"] = condition["reason"].replace("SourceUnreachable", reason)
    found = health(job)
    assert (found["status"], found["message"].partition(":")[0]) == ("Degraded", reason)


@pytest.mark.parametrize("reason", [*reasons("PENDING", "COMPLETED"), conditions.NAME_TAKEN])
@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_job_that_is_not_ready_is_progressing_whatever_its_stage_and_says_it(reason: str, status: str) -> None:
    job = fixture("progressing_training.yaml")
    job["status"]["conditions"][0] |= {"reason": reason, "status": status, "message": "what happens"}
    assert health(job) == {"status": "Progressing", "message": f"{reason}: what happens"}


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"conditions": []},
        {"observedGeneration": -1},
        {"observedGeneration": 1, "startTime": "2026-11-22T03:00:00Z"},
        {"conditions": [{"type": "Ready"}]},
        {"conditions": [{"type": "Ready", "status": "Unknown"}]},
        {"conditions": [{"type": "Prepared", "status": "True", "reason": "Succeeded"}]},
        {"conditions": [{"type": "SomethingNew", "status": "True", "reason": "New"}]},
        {"conditions": [{"type": "Complete", "status": "True", "reason": "Succeeded"}]},
    ],
    ids=str,
)
def test_a_job_with_next_to_no_status_is_progressing_and_says_something(status: dict[str, Any] | None) -> None:
    job = {"metadata": {"generation": 1}} | ({} if status is None else {"status": status})
    found = health(job)
    assert found["status"] == "Progressing"
    assert found["message"]


@pytest.mark.parametrize("failure", ["Failed", "Stalled"])
def test_a_failure_alone_is_enough_to_be_degraded(failure: str) -> None:
    status = {"conditions": [{"type": failure, "status": "True", "reason": "InvalidData", "message": "row 3"}]}
    job = {"metadata": {"generation": 1}, "status": status}
    assert health(job) == {"status": "Degraded", "message": "InvalidData: row 3"}


def expected_health(job: dict[str, Any]) -> str:
    """By the words of the API: health.lua has to come to the same from the conditions."""
    held = {entry["type"] for entry in job["status"].get("conditions", []) if entry["status"] == "True"}
    if job["status"]["observedGeneration"] != job["metadata"]["generation"]:
        return "Progressing"
    if "Failed" in held:
        return "Degraded"
    if "Suspended" in held:
        return "Suspended"
    return "Healthy" if {"Ready", "Complete"} <= held else "Progressing"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whatever_a_job_goes_through_it_is_healthy_only_when_done_and_degraded_for_good(scenario: str) -> None:
    history = a_run(scenario).history
    verdicts = [health(job)["status"] for job in history]
    assert verdicts == [expected_health(job) for job in history]
    if "Degraded" in verdicts:
        assert set(verdicts[verdicts.index("Degraded") :]) == {"Degraded"}
    assert verdicts[-1] in ("Healthy", "Degraded", "Suspended")


def with_condition(name: str, condition: str, status: str) -> dict[str, Any]:
    job = fixture(name)
    job["status"]["conditions"].append({"type": condition, "status": status, "reason": "Because"})
    return job


@pytest.mark.parametrize(
    ("name", "condition", "status", "expected"),
    [
        ("degraded_source_unreachable.yaml", "Suspended", "True", "Degraded"),
        ("progressing_training.yaml", "Suspended", "False", "Progressing"),
        ("progressing_training.yaml", "Stalled", "True", "Degraded"),
        ("healthy_serving.yaml", "Suspended", "True", "Suspended"),
        ("healthy_serving.yaml", "Reconciling", "True", "Progressing"),
        ("healthy_serving.yaml", "Reconciling", "False", "Healthy"),
        ("healthy_serving.yaml", "SomethingNew", "True", "Healthy"),
        ("progressing_spec_changed.yaml", "SomethingNew", "True", "Progressing"),
    ],
)
def test_a_further_condition_is_weighed(name: str, condition: str, status: str, expected: str) -> None:
    assert health(with_condition(name, condition, status))["status"] == expected


def test_a_failure_is_told_without_the_log_lines() -> None:
    message = health(fixture("degraded_source_unreachable.yaml"))["message"]
    assert message.startswith("SourceUnreachable: ")
    assert "\n" not in message


@pytest.mark.parametrize("case", ACTIONS["discoveryTests"], ids=lambda case: Path(case["inputPath"]).stem)
def test_argocd_offers_to_suspend_what_may_run_and_to_resume_what_is_suspended(case: dict[str, Any]) -> None:
    offered = actions(fixture(Path(case["inputPath"]).name))
    assert [{"name": name, **shown} for name, shown in offered.items()] == case["result"]


@pytest.mark.parametrize("case", ACTIONS["actionTests"], ids=lambda case: case["action"])
def test_an_action_changes_suspend_and_nothing_else(case: dict[str, Any]) -> None:
    before, after = (
        yaml.safe_load((CUSTOMIZATION / "actions" / case[key]).read_text())
        for key in ("inputPath", "expectedOutputPath")
    )
    assert acted(before, case["action"]) == after
    assert before["spec"] | {"suspend": case["action"] == "suspend"} == after["spec"]


def test_the_configmap_carries_the_same_scripts() -> None:
    data = yaml.safe_load((FOLDER / "argocd-cm.yaml").read_text())["data"]
    kind = "finetune-operator.io_FineTuneJob"
    assert data.keys() == {f"resource.customizations.{what}.{kind}" for what in ("health", "actions")}
    assert data[f"resource.customizations.health.{kind}"] == SCRIPT
    assert yaml.safe_load(data[f"resource.customizations.actions.{kind}"]) == {
        "discovery.lua": action_script("discovery.lua"),
        "definitions": [
            {"name": name, "action.lua": action_script(f"{name}/action.lua")} for name in ("suspend", "resume")
        ],
    }


@pytest.mark.parametrize("name", ["application.yaml", "application-jobs.yaml"])
def test_an_application_applies_and_compares_on_the_server(name: str) -> None:
    application = yaml.safe_load((FOLDER / name).read_text())
    assert (application["apiVersion"], application["kind"]) == ("argoproj.io/v1alpha1", "Application")
    assert {"project", "source", "destination", "syncPolicy"} == application["spec"].keys()
    assert {"ServerSideApply=true", "CreateNamespace=true"} <= set(application["spec"]["syncPolicy"]["syncOptions"])
    annotations = application["metadata"]["annotations"]
    assert annotations["argocd.argoproj.io/compare-options"] == "ServerSideDiff=true"


def test_the_applicationset_syncs_the_operator_before_the_jobs_and_prunes_no_job() -> None:
    made = yaml.safe_load((FOLDER / "applicationset.yaml").read_text())
    assert (made["apiVersion"], made["kind"]) == ("argoproj.io/v1alpha1", "ApplicationSet")
    [generator] = made["spec"]["generators"]
    elements = generator["list"]["elements"]
    steps = made["spec"]["strategy"]["rollingSync"]["steps"]
    order = [value for step in steps for expression in step["matchExpressions"] for value in expression["values"]]
    assert order == ["operator", "jobs"]
    assert {element["role"]: element["prune"] for element in elements} == {"operator": True, "jobs": False}
    assert sorted(elements, key=lambda element: int(element["wave"])) == elements
    template = json.dumps(made["spec"]["template"]) + made["spec"]["templatePatch"]
    for key in re.findall(r"{{-? ?(?:if eq )?\.(\w+)", template):
        assert all(key in element for element in elements), f"the template asks for {key}"
    options = made["spec"]["template"]["spec"]["syncPolicy"]["syncOptions"]
    assert {"ServerSideApply=true", "CreateNamespace=true", "SkipDryRunOnMissingResource=true"} == set(options)


def test_the_applicationset_and_the_application_keep_the_definition_alike() -> None:
    patch = (FOLDER / "applicationset.yaml").read_text()
    application = yaml.safe_load((FOLDER / "application.yaml").read_text())
    annotations = application["spec"]["source"]["helm"]["valuesObject"]["crds"]["annotations"]
    [(key, value)] = annotations.items()
    assert f"{key}: {value}" in patch
