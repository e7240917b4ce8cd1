"""Both tutorials' jobs in tiny form, from `kubectl apply` to an answer that another pod gets through the Service's name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from job_driver import Driver
from real_cluster import Site
from real_jobs import ASKERS, QWEN, TEAM, YI, as_list, asking_pod

# What the kernel lets a process of the pod do.
_LOOK = """
import json, os, pathlib
def write(folder):
    try:
        pathlib.Path(folder, "written").write_text("")
    except OSError as error:
        return error.strerror
    return ""
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
kernel = {name: status[name].strip() for name in ("CapEff", "NoNewPrivs", "Seccomp")}
places = {"root": write("/"), "job": write("/finetune/job"), "tmp": write("/tmp")}
print(json.dumps({"uid": os.getuid(), **places, **kernel}))
"""


pytestmark = pytest.mark.usefixtures("tutorials")


@pytest.mark.parametrize("job", [QWEN, YI])
def test_a_served_model_answers_a_pod_of_another_namespace_by_its_services_name(
    cluster: Site, team: Driver, job: str
) -> None:
    url = f"http://{job}.{TEAM}.svc.cluster.local:8000/v1"
    pod = asking_pod(f"ask-{job}", cluster.image("operator"), url, job, "Who are you?")
    done = cluster.kubectl("apply", "-f", "-", input=as_list([pod]))
    assert done.returncode == 0, done.stderr
    asker = Driver(cluster, ASKERS)
    asker.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/ask-{job}", "--timeout=120s")
    assert json.loads(asker.kubectl("logs", f"ask-{job}"))


def test_the_first_tutorials_adapter_was_merged_and_the_seconds_is_served_as_it_is(team: Driver) -> None:
    assert team.condition(QWEN, "Merged")["status"] == "True"
    assert [_served(team, job) for job in (QWEN, YI)] == ["Merged/Transformers", "Adapter/Transformers"]


@pytest.mark.parametrize("job", [QWEN, YI])
def test_training_held_a_gpu_that_the_kubelet_gave_it(team: Driver, job: str) -> None:
    [pod] = _pods(team, job, "train")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["status"]["phase"] == "Succeeded"


@pytest.mark.parametrize("stage", ["prepare", "train", "merge", "serve"])
def test_every_stage_runs_as_pod_security_restricted_asks(team: Driver, stage: str) -> None:
    [pod] = _pods(team, QWEN, stage)
    context, [container] = pod["spec"]["securityContext"], pod["spec"]["containers"]
    assert context["runAsNonRoot"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


def test_the_kernel_holds_a_serving_pod_to_it(cluster: Site, team: Driver) -> None:
    facts = json.loads(team.kubectl("exec", f"deployment/{QWEN}", "--", "python", "-c", _LOOK))
    assert facts == {
        "uid": 65532,
        "root": "Read-only file system",
        "job": "Read-only file system",
        "tmp": "",
        "CapEff": "0000000000000000",
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }


def _served(team: Driver, job: str) -> str:
    [pod] = _pods(team, job, "serve")
    return str(pod["metadata"]["annotations"]["finetune-operator.io/served"])


def _pods(team: Driver, job: str, stage: str) -> list[dict[str, Any]]:
    labels = f"finetune-operator.io/job={job},finetune-operator.io/stage={stage}"
    found: list[dict[str, Any]] = json.loads(team.kubectl("get", "pods", "-l", labels, "-o", "json"))["items"]
    return found
