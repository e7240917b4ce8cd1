"""ArgoCD's verdicts on FineTuneJobs, and the examples for it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from argocd import CUSTOMIZATION, FOLDER, SCRIPT, health
from finetune_operator.api import conditions
from finetune_operator.api.job import FineTuneJob
from finetune_operator.api.status import FineTuneJobStatus

_STAGES = ("Queued", "Suspended", "Preparing", "Training", "Retrying", "Merging", "Deploying", "Serving", "Completed")
_ABNORMAL = ("Suspended", "Reconciling", "Stalled")
CASES = yaml.safe_load((CUSTOMIZATION / "health_test.yaml").read_text())["tests"]
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
    assert stages >= {*_STAGES, conditions.FAILED, conditions.NAME_TAKEN}
    held = {condition["type"] for condition in status if condition["status"] == "True"}
    assert held == {"Ready", "Prepared", "Trained", "Merged", "Served", "Complete", "Failed", *_ABNORMAL}


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_is_a_job_as_the_api_holds_it(name: str) -> None:
    job = FineTuneJob.model_validate(fixture(name))
    known = FineTuneJobStatus.model_validate(job.status or {}).to_manifest()
    assert (job.status or {}).items() <= known.items()


@pytest.mark.parametrize("status", [None, {}, {"conditions": []}, {"conditions": [{"type": "Ready"}]}])
def test_a_job_with_next_to_no_status_is_progressing(status: dict[str, Any] | None) -> None:
    job = {"metadata": {"generation": 1}} | ({} if status is None else {"status": status})
    assert health(job)["status"] == "Progressing"


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
    ],
)
def test_a_further_condition_is_weighed(name: str, condition: str, status: str, expected: str) -> None:
    assert health(with_condition(name, condition, status))["status"] == expected


def test_a_failure_is_told_without_the_log_lines() -> None:
    message = health(fixture("degraded_source_unreachable.yaml"))["message"]
    assert message.startswith("SourceUnreachable: ")
    assert "\n" not in message


def test_the_configmap_carries_the_same_script() -> None:
    data = yaml.safe_load((FOLDER / "argocd-cm.yaml").read_text())["data"]
    assert data == {"resource.customizations.health.finetune-operator.io_FineTuneJob": SCRIPT}


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
