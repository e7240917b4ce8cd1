"""T1, T12, T13, T15, T17: what the built children and the rendered chart allow a pod. No cluster is needed: the layer is build/."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chart import VALUES_FILES, of_kind, render
from every_child import SETTINGS, SPECS, children, pod_templates
from finetune_operator.api import names
from finetune_operator.api.status import Attempt, FineTuneJobStatus
from finetune_operator.build.types import JobView
from finetune_operator.plan import retry
from finetune_operator.plan.plan import plan
from finetune_operator.plan.types import Event
from hardening import CHECKS, mounts_no_token, pods_of
from manifest_builders import a_job
from plan_answers import condition, decide

FILES = [*VALUES_FILES, None]
POLICIES = ("--set", "networkPolicy.jobs.namespaces={team-a}", "--set", "networkPolicy.operator.enabled=true")
METADATA = {"169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "100.100.100.200/32"}


def job(spec: str) -> JobView:
    return a_job().with_spec(**SPECS[spec]).job()


@pytest.mark.threat("T12")
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("spec", SPECS)
def test_every_pod_of_a_job_is_hardened(spec: str, check: str) -> None:
    found = dict(pods_of(children(job(spec))))
    assert len(found) == 4
    assert [name for name, pod in found.items() if not CHECKS[check](pod)] == []


@pytest.mark.threat("T12")
@pytest.mark.parametrize("spec", SPECS)
def test_no_pod_of_a_job_mounts_a_token_of_the_api_server(spec: str) -> None:
    assert all(mounts_no_token(pod) for _, pod in pods_of(children(job(spec))))


@pytest.mark.threat("T12")
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("values", FILES, ids=lambda file: file.stem if file else "defaults")
def test_every_pod_of_the_chart_is_hardened(values: Any, check: str) -> None:
    found = dict(pods_of(_rendered(values)))
    assert len(found) == 2
    assert [name for name, pod in found.items() if not CHECKS[check](pod)] == []


_renders: dict[str, list[dict[str, Any]]] = {}


def _rendered(values: Any) -> list[dict[str, Any]]:
    key = str(values)
    if key not in _renders:
        _renders[key] = render("--values", values) if values else render()
    return _renders[key]


@pytest.mark.threat("T12")
def test_the_checks_find_what_they_look_for() -> None:
    [pod, *_] = [template["spec"] for template in pod_templates(children(job("defaults")))]
    container = pod["containers"][0]
    worst = {
        "hostNetwork": True,
        "securityContext": {
            "runAsNonRoot": False,
            "runAsUser": 0,
            "seccompProfile": {"type": "Unconfined"},
            "sysctls": [],
        },
        "volumes": [{"name": "x", "hostPath": {"path": "/run/containerd.sock"}}, {"secret": {"secretName": "x"}}],
        "containers": [
            {
                **container,
                "image": "evil:latest",
                "command": ["sh", "-c", "id"],
                "resources": {},
                "ports": [{"hostPort": 22}],
                "envFrom": [{"secretRef": {"name": "x"}}],
                "securityContext": {
                    "privileged": True,
                    "procMount": "Unmasked",
                    "capabilities": {"add": ["SYS_ADMIN"]},
                },
            }
        ],
    }
    assert [name for name, check in CHECKS.items() if check(worst)] == []


@pytest.mark.threat("T1")
@pytest.mark.parametrize("spec", SPECS)
def test_images_account_and_commands_come_from_the_settings_whatever_the_job_says(spec: str) -> None:
    images = {SETTINGS.images.trainer, SETTINGS.images.merger, SETTINGS.images.server, SETTINGS.images.vllm}
    for _, pod in pods_of(children(job(spec))):
        [container] = pod["containers"]
        assert container["image"] in images
        assert pod["serviceAccountName"] == SETTINGS.service_account_name
        assert container["command"][0] in ("finetune-trainer", "finetune-merger", "finetune-server")
        assert "args" not in container


@pytest.mark.threat("T1")
def test_marks_of_a_job_do_not_reach_its_pods_but_kueues() -> None:
    marks = {
        "sidecar.istio.io/inject": "true",
        "container.apparmor.security.beta.kubernetes.io/train": "unconfined",
        "app.kubernetes.io/managed-by": "somebody",
        "pod-security.kubernetes.io/enforce": "privileged",
        names.JOB_NAME_LABEL: "another",
    }
    marked = a_job().with_labels(marks).with_annotations(marks).job()
    assert children(marked) == children(a_job().job())


@pytest.mark.threat("T13")
@pytest.mark.parametrize("spec", SPECS)
def test_every_pod_of_a_job_is_in_exactly_one_network_policy(spec: str) -> None:
    policies = [policy["spec"] for policy in of_kind(render(*POLICIES), "NetworkPolicy")]
    for template in pod_templates(children(job(spec))):
        labels = template["metadata"]["labels"]
        hit = [policy for policy in policies if _selects(policy["podSelector"], labels)]
        assert len(hit) == 1, labels
        assert set(hit[0]["policyTypes"]) == {"Ingress", "Egress"}, "layer: NetworkPolicy"


@pytest.mark.threat("T13")
def test_training_and_serving_pods_reach_nothing_of_the_world() -> None:
    for stage in ("train", "serve"):
        blocks = [peer for peer in _peers(stage, "egress", "to") if "ipBlock" in peer]
        assert blocks == [], stage
    assert _policy("serve").get("egress", []) == []


@pytest.mark.threat("T13")
def test_nobody_reaches_prepare_and_merge_pods() -> None:
    assert _policy("prepare").get("ingress", []) == []


@pytest.mark.threat("T9")
@pytest.mark.parametrize("address", sorted(METADATA))
def test_pods_that_download_do_not_reach_a_metadata_service(address: str) -> None:
    blocks = [peer["ipBlock"] for peer in _peers("prepare", "egress", "to") if "ipBlock" in peer]
    assert any(address in block.get("except", []) for block in blocks), "layer: NetworkPolicy"


def _policy(stage: str) -> dict[str, Any]:
    found = of_kind(render(*POLICIES), "NetworkPolicy")
    [policy] = [entry for entry in found if entry["metadata"]["name"].endswith(f"-{stage}")]
    return dict(policy["spec"])


def _peers(stage: str, direction: str, which: str) -> list[dict[str, Any]]:
    return [peer for rule in _policy(stage).get(direction, []) for peer in rule.get(which, [])]


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    among = all(labels.get(entry["key"]) in entry["values"] for entry in selector.get("matchExpressions", []))
    return exact and among


@pytest.mark.threat("T17")
@pytest.mark.parametrize("spec", SPECS)
def test_what_was_trained_is_served_from_a_read_only_mount(spec: str) -> None:
    pods = dict(pods_of(children(job(spec))))
    [deployment] = [pod for name, pod in pods.items() if name.startswith("Deployment/")]
    mounts = {mount["mountPath"]: mount for mount in deployment["containers"][0]["volumeMounts"]}
    assert mounts["/finetune/job"]["readOnly"] is True
    writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}
    assert writable == {"/tmp", "/home/finetune", "/dev/shm"}


@pytest.mark.threat("T17")
@pytest.mark.parametrize("spec", SPECS)
def test_inputs_are_mounted_to_be_read(spec: str) -> None:
    for _, pod in pods_of(children(job(spec))):
        inputs = [mount for mount in pod["containers"][0]["volumeMounts"] if "/inputs/" in mount["mountPath"]]
        assert all(mount.get("readOnly") is True for mount in inputs)


@pytest.mark.threat("T17")
def test_on_a_shared_claim_a_job_sees_the_folder_of_its_name_only() -> None:
    shared = a_job("mine").with_spec(storage={"claim": "shared"}).job()
    for _, pod in pods_of(children(shared)):
        [mount] = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"] == "/finetune/job"]
        assert mount["subPath"] == "mine"


@pytest.mark.threat("T17")
def test_results_belong_to_the_pods_own_user_and_group() -> None:
    for _, pod in pods_of(children(job("defaults"))):
        context = pod["securityContext"]
        assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 65532


@pytest.mark.threat("T15")
def test_a_job_that_fails_for_ever_waits_longer_each_time_and_gives_up() -> None:
    attempts = [Attempt(number=number, reason="Infrastructure") for number in range(8)]
    pauses = [retry.pause(attempts[: count + 1], 10) for count in range(8)]
    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600], "layer: plan"
    world = a_job().with_spec(maxRetries=2).training(2).with_status(attempts=attempts[:2])
    planned = decide(world.died("qwen-train-2", 1))
    assert condition(planned, "Failed").reason == "RetriesExhausted"


@pytest.mark.threat("T15")
def test_a_job_whose_time_is_over_is_ended_with_its_pods() -> None:
    world = a_job().with_spec(activeDeadlineSeconds=60).training().running("qwen-train-0").at(61)
    planned = decide(world)
    assert ("Job", "qwen-train-0") in planned.delete
    assert condition(planned, "Failed").reason == "DeadlineExceeded"


@pytest.mark.threat("T15")
def test_the_same_thing_seen_again_and_again_is_told_once() -> None:
    told: list[Event] = []
    status = FineTuneJobStatus()
    for second in range(100):
        observed = a_job().running("qwen-prepare").at(second).observed()
        planned = plan(replace(observed, job=replace(observed.job, status=status)), SETTINGS)
        told, status = [*told, *planned.events], planned.status
    assert [event.reason for event in told] == ["Preparing"], "layer: plan, events for changes only"
