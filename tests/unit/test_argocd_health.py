"""ArgoCD's verdicts on FineTuneJobs, by a real Lua 5.1 (ArgoCD's own dialect) with only the functions that ArgoCD gives it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from finetune_operator.api.job import FineTuneJob
from finetune_operator.api.status import FineTuneJobStatus

ARGOCD = Path(__file__).resolve().parents[2] / "examples" / "argocd"
CUSTOMIZATION = ARGOCD / "resource_customizations" / "finetune-operator.io" / "FineTuneJob"
SCRIPT = (CUSTOMIZATION / "health.lua").read_text()
CASES = yaml.safe_load((CUSTOMIZATION / "health_test.yaml").read_text())["tests"]
FIXTURES = sorted(path.name for path in (CUSTOMIZATION / "testdata").iterdir())


def verdict(job: dict[str, Any]) -> dict[str, str]:
    lua = LuaRuntime()
    for name in list(lua.globals()):
        if name not in ("pairs", "ipairs", "type", "tostring", "table"):
            lua.globals()[name] = None
    lua.globals()["obj"] = lua.table_from(job, recursive=True)
    return dict(lua.execute(SCRIPT))


def fixture(name: str) -> dict[str, Any]:
    job: dict[str, Any] = yaml.safe_load((CUSTOMIZATION / "testdata" / name).read_text())
    return job


@pytest.mark.parametrize("case", CASES, ids=lambda case: Path(case["inputPath"]).stem)
def test_a_job_has_the_health_and_message_that_its_conditions_say(case: dict[str, Any]) -> None:
    assert verdict(fixture(Path(case["inputPath"]).name)) == case["healthStatus"]


def test_every_fixture_is_used_and_named_by_its_verdict() -> None:
    verdicts = {Path(case["inputPath"]).name: case["healthStatus"]["status"] for case in CASES}
    assert sorted(verdicts) == FIXTURES
    assert [name for name, status in verdicts.items() if not name.startswith(status.lower())] == []


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_is_a_job_as_the_api_holds_it(name: str) -> None:
    job = FineTuneJob.model_validate(fixture(name))
    known = FineTuneJobStatus.model_validate(job.status or {}).to_manifest()
    assert (job.status or {}).items() <= known.items()


@pytest.mark.parametrize("status", [None, {}, {"conditions": []}, {"conditions": [{"type": "Ready"}]}])
def test_a_job_with_next_to_no_status_is_progressing(status: dict[str, Any] | None) -> None:
    job = {"metadata": {"generation": 1}} | ({} if status is None else {"status": status})
    assert verdict(job)["status"] == "Progressing"


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
    assert verdict(with_condition(name, condition, status))["status"] == expected


def test_a_failure_is_told_without_the_log_lines() -> None:
    message = verdict(fixture("degraded_source_unreachable.yaml"))["message"]
    assert message.startswith("SourceUnreachable: ")
    assert "\n" not in message


def test_the_configmap_carries_the_same_script() -> None:
    data = yaml.safe_load((ARGOCD / "argocd-cm.yaml").read_text())["data"]
    assert data == {"resource.customizations.health.finetune-operator.io_FineTuneJob": SCRIPT}


@pytest.mark.parametrize("name", ["application.yaml", "application-jobs.yaml"])
def test_an_application_applies_and_compares_on_the_server(name: str) -> None:
    application = yaml.safe_load((ARGOCD / name).read_text())
    assert (application["apiVersion"], application["kind"]) == ("argoproj.io/v1alpha1", "Application")
    assert {"project", "source", "destination", "syncPolicy"} == application["spec"].keys()
    assert {"ServerSideApply=true", "CreateNamespace=true"} <= set(application["spec"]["syncPolicy"]["syncOptions"])
    annotations = application["metadata"]["annotations"]
    assert annotations["argocd.argoproj.io/compare-options"] == "ServerSideDiff=true"
