"""T2, T6, T11, T12, T18 against a running operator: jobs that would stop it, names of others, forged children, secrets in what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kubernetes import client

from finetune_operator.api import names
from finetune_operator.api.base import API_VERSION, GROUP, KIND, PLURAL, VERSION
from finetune_operator.api.outcome import TerminationMessage
from job_space import Space, create, manifest
from operator_process import OperatorProcess, apply
from support_wait import eventually

TOKEN = "hf_CANARYdeadbeef0123456789"
KEY = "canary-5f2b9c7e41d84a0fb6e39d2c81a7f054"
POISONS: dict[str, dict[str, Any]] = {
    "depth": {"deepspeed": {"config": '{"a":' * 5000 + "1" + "}" * 5000}},
    "not-json": {"deepspeed": {"config": "{not json}"}},
    "long-key": {"datasets": [{"source": "hf://a/b", "placeholders": {"k" * 200_000: "v"}}]},
    "odd-label": {"resources": {"nodeSelector": {"not a label!": "x"}}},
    "odd-resource": {"resources": {"gpuResourceName": "..-../gpu"}},
}


def status_size(space: Space, job: str) -> int:
    return len(json.dumps(space.get("finetunejob", job).get("status", {})))


@pytest.fixture(scope="module")
def poisoned(team: Space, jobs_api: client.CustomObjectsApi) -> list[str]:
    for name, spec in POISONS.items():
        # not by kubectl, whose YAML knows limits of its own
        job = manifest(team, f"poison-{name}", **spec)
        jobs_api.create_namespaced_custom_object(GROUP, VERSION, team.name, PLURAL, job)
    # Where training pods may run is looked at by the API server only when there is a training Job.
    for name in (name for name in POISONS if name.startswith("odd-")):
        team.finish_prepare(f"poison-{name}")
    return [f"poison-{name}" for name in POISONS]


@pytest.mark.threat("T18")
def test_jobs_that_cannot_be_carried_out_do_not_hold_up_others(
    team: Space, poisoned: list[str], operator: OperatorProcess
) -> None:
    create(team, "healthy")
    eventually(lambda: team.exists("job", "healthy-prepare"), message="a healthy job goes on")
    assert operator.probe("readyz") == operator.probe("healthz") == 200


@pytest.mark.threat("T18")
@pytest.mark.parametrize("name", POISONS)
def test_a_job_that_cannot_be_carried_out_says_so_in_few_words(team: Space, poisoned: list[str], name: str) -> None:
    told = eventually(
        lambda: _problem(team, f"poison-{name}"),
        message="Failed, or the API server's refusal in Ready (layer: operator)",
    )
    assert told
    assert status_size(team, f"poison-{name}") < 64 * 1024


def _problem(space: Space, job: str) -> str:
    failed, ready = space.condition(job, "Failed"), space.condition(job, "Ready")
    if failed.get("status") == "True":
        return str(failed["message"])
    return str(ready["message"]) if "refused" in ready.get("message", "") else ""


@pytest.mark.threat("T18")
def test_a_status_full_of_the_longest_messages_stays_below_64_kib(team: Space) -> None:
    create(team, "wordy", maxRetries=0)
    said = TerminationMessage("InvalidData", "汉\x1b" * 3000, {}).encode().decode()
    team.end_pod(team.pod_of("wordy-prepare"), 65, said)
    message = eventually(lambda: team.condition("wordy", "Failed").get("status") == "True" and _problem(team, "wordy"))
    assert "汉" in message
    assert "\x1b" not in message, "a terminal would obey it"
    assert status_size(team, "wordy") < 64 * 1024


@pytest.mark.threat("T2")
def test_a_claim_of_another_namespace_is_not_found(team: Space, neighbour: Space) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "treasure", "namespace": neighbour.name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    apply(team.cluster, claim)
    create(team, "thief", storage={"claim": "treasure"}, model={"source": "pvc://treasure/model"})
    team.await_reason("thief", "ClaimNotFound")
    assert not team.exists("job", "thief-prepare"), "layer: plan"


@pytest.mark.threat("T2")
@pytest.mark.parametrize(
    ("kind", "suffix"), [("service", ""), ("configmap", "-run"), ("job", "-prepare"), ("pvc", "-data")]
)
def test_an_object_of_somebody_else_is_neither_taken_over_nor_deleted(team: Space, kind: str, suffix: str) -> None:
    job = f"grab-{kind}"
    name = f"{job}{suffix}"
    apply(team.cluster, _foreign(team.name, kind, name))
    before = team.get(kind, name)
    create(team, job, serving={"gpus": 0})
    team.await_reason(job, "NameTaken")
    team.kubectl("delete", "finetunejob", job)
    after = team.get(kind, name)
    assert _content(after) == _content(before), "layer: plan"


def _content(found: dict[str, Any]) -> Any:
    return found["metadata"]["uid"], found["metadata"].get("labels"), found.get("data"), found.get("spec")


def _foreign(namespace: str, kind: str, name: str) -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    kinds: dict[str, tuple[str, str, dict[str, Any]]] = {
        "service": ("v1", "Service", {"spec": {"ports": [{"port": 80}]}}),
        "configmap": ("v1", "ConfigMap", {"data": {"mine": "yes"}}),
        "job": ("batch/v1", "Job", {"spec": {"suspend": True, "template": {"spec": pod}}}),
        "pvc": ("v1", "PersistentVolumeClaim", {"spec": claim}),
    }
    version, named, content = kinds[kind]
    return {"apiVersion": version, "kind": named, "metadata": {"name": name, "namespace": namespace}, **content}


@pytest.mark.threat("T18")
@pytest.mark.parametrize("owner", ["nobody", "another job"])
def test_a_forged_child_of_a_job_is_not_believed(team: Space, owner: str) -> None:
    job = f"victim-of-{owner.split()[0]}"
    create(team, f"{job}-owner", suspend=True)
    forged = _foreign(team.name, "job", f"{job}-prepare")
    forged["metadata"]["labels"] = names.labels(job, "prepare")
    if owner != "nobody":
        uid = team.get("finetunejob", f"{job}-owner")["metadata"]["uid"]
        reference = {"apiVersion": API_VERSION, "kind": KIND, "name": f"{job}-owner", "uid": uid, "controller": True}
        forged["metadata"]["ownerReferences"] = [reference]
    apply(team.cluster, forged)
    create(team, job)
    team.await_reason(job, "NameTaken")
    assert team.condition(job, "Prepared")["status"] == "Unknown", "layer: plan, ownership by UID"


@pytest.mark.threat("T18")
def test_labels_on_foreign_objects_lead_the_operator_nowhere(team: Space, operator: OperatorProcess) -> None:
    noise = [_foreign(team.name, "job", f"noise-{number}") for number in range(50)]
    for number, job in enumerate(noise):
        job["metadata"]["labels"] = names.labels(f"nobody-{number}", "train")
    apply(team.cluster, *noise)
    create(team, "undisturbed")
    eventually(lambda: team.exists("job", "undisturbed-prepare"), message="jobs go on")
    assert "nobody-" not in operator.get("metrics")[1]


@pytest.fixture(scope="module")
def secretive(team: Space) -> str:
    """A job that is given Secrets for everything, was trained, merged and is served."""
    values = {"token": TOKEN, "key": KEY}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "canary", "namespace": team.name}}
    apply(team.cluster, {**secret, "stringData": values})
    reference = {"name": "canary", "key": "key"}
    create(
        team,
        "secretive",
        model={"source": "hf://org/tiny", "tokenSecret": {"name": "canary"}},
        datasets=[{"source": "hf://org/chat", "tokenSecret": reference}],
        tracking={"wandb": {"project": "p", "apiKeySecret": reference}},
        merge={"push": {"target": "hf://org/tuned", "tokenSecret": {"name": "canary"}}},
        serving={"gpus": 0, "replicas": 2, "apiKeySecret": reference},
        resources={"gpusPerNode": 0},
    )
    for stage in ("prepare", "train-0", "merge"):
        said = TerminationMessage("Succeeded", "", {"skippedCheckpoints": f"checkpoint-1: {TOKEN}"}).encode().decode()
        team.end_pod(team.pod_of(f"secretive-{stage}"), 0, said)
    eventually(lambda: team.exists("poddisruptionbudget", "secretive"), message="it is served")
    return "secretive"


def everything_said(space: Space, operator: OperatorProcess) -> str:
    """All that anybody but the readers of Secrets can see: objects, events, the operator's log and figures."""
    kinds = "finetunejobs,jobs,deployments,services,configmaps,persistentvolumeclaims,pods,events,poddisruptionbudgets"
    return json.dumps(_without_what_kubelets_say(space.items(kinds))) + operator.log_text() + operator.get("metrics")[1]


def _without_what_kubelets_say(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # The pod's own status is where this test, in the place of the kubelet, wrote the canary.
    return [{**found, "status": {}} if found["kind"] == "Pod" else found for found in objects]


@pytest.mark.threat("T11")
def test_no_value_of_a_secret_stands_in_anything_that_the_operator_writes(
    team: Space, secretive: str, operator: OperatorProcess
) -> None:
    said = everything_said(team, operator)
    assert "canary" in said, "the Secret's name may be said"
    assert TOKEN not in said
    assert KEY not in said


LEAKS = {
    "in its last words": lambda: (
        TerminationMessage("SourceUnreachable", f"401 for {TOKEN} and {KEY}", {}).encode().decode()
    ),
    "in a URL of its last words": lambda: (
        TerminationMessage("InternalError", f"see https://u:{KEY}@h/x", {}).encode().decode()
    ),
    "instead of its last words": lambda: f"Traceback: token={KEY}\nAuthorization: Bearer {TOKEN}",
    "in what is no text": lambda: f'{{"reason": "x", "message": ["{KEY}", "{TOKEN}"]}}',
}


@pytest.mark.threat("T11")
@pytest.mark.parametrize("leak", LEAKS)
def test_a_stage_that_prints_a_secret_as_it_fails_does_not_get_it_into_status_or_events(
    team: Space, operator: OperatorProcess, leak: str
) -> None:
    job = f"leaks-{list(LEAKS).index(leak)}"
    create(team, job)
    team.end_pod(team.pod_of(f"{job}-prepare"), 70, LEAKS[leak]())
    eventually(lambda: team.condition(job, "Failed").get("status") == "True", message="the job fails")
    said = everything_said(team, operator)
    assert "[redacted]" in json.dumps(team.get("finetunejob", job)["status"]), "layer: operator, redaction"
    assert TOKEN not in said
    assert KEY not in said


@pytest.mark.threat("T6")
@pytest.mark.parametrize("image", ["evil.example/server:1"])
def test_an_image_that_was_swapped_in_the_deployment_is_put_back(team: Space, secretive: str, image: str) -> None:
    wanted = team.get("deployment", secretive)["spec"]["template"]["spec"]["containers"][0]["image"]
    team.kubectl("set", "image", f"deployment/{secretive}", f"serve={image}")
    eventually(
        lambda: team.get("deployment", secretive)["spec"]["template"]["spec"]["containers"][0]["image"] == wanted,
        message="layer: operator, server-side apply",
    )


@pytest.mark.threat("T6")
def test_a_model_that_was_swapped_in_run_json_is_put_back(team: Space, secretive: str) -> None:
    wanted = team.get("configmap", f"{secretive}-run")["data"]
    swapped = json.dumps({"data": {"run.json": wanted["run.json"].replace("org/tiny", "evil/tiny")}})
    team.kubectl("patch", "configmap", f"{secretive}-run", "--type=merge", "-p", swapped)
    eventually(lambda: team.get("configmap", f"{secretive}-run")["data"] == wanted, message="layer: operator, apply")


@pytest.mark.threat("T6")
@pytest.mark.parametrize(
    "edit",
    [{"model": {"source": "hf://evil/model"}}, {"model": {"revision": "evil"}}, {"adapter": {"source": "hf://e/a"}}],
)
def test_the_model_of_a_job_cannot_be_swapped_afterwards(team: Space, secretive: str, edit: dict[str, Any]) -> None:
    done = team.cluster.kubectl(
        "-n", team.name, "patch", "finetunejob", secretive, "--type=merge", "-p", json.dumps({"spec": edit})
    )
    assert done.returncode != 0
    assert "cannot be changed once the job is created" in done.stderr, "layer: CEL"


@pytest.mark.threat("T12")
@pytest.mark.parametrize("stage", ["prepare", "train-0", "merge"])
def test_the_pods_of_a_job_are_admitted_where_only_restricted_ones_are(team: Space, secretive: str, stage: str) -> None:
    assert team.pod_of(f"{secretive}-{stage}"), "layer: PSA admission"


@pytest.mark.threat("T12")
@pytest.mark.parametrize(
    "more",
    [
        {"hostNetwork": True},
        {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]},
        {"securityContext": {"runAsUser": 0}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_the_same_pod_with_one_more_right_is_not_admitted(team: Space, secretive: str, more: dict[str, Any]) -> None:
    spec = team.get("job", f"{secretive}-merge")["spec"]["template"]["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "more", "namespace": team.name}, "spec": spec}
    assert _dry_run(team, pod) == ""
    merged = {key: {**spec.get(key, {}), **value} if isinstance(value, dict) else value for key, value in more.items()}
    merged = {key: [*spec[key], *value] if isinstance(value, list) else value for key, value in merged.items()}
    assert 'violates PodSecurity "restricted' in _dry_run(team, {**pod, "spec": {**spec, **merged}}), "layer: PSA"


def _dry_run(space: Space, pod: dict[str, Any]) -> str:
    done = space.cluster.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(pod))
    return "" if done.returncode == 0 else done.stderr


@pytest.mark.threat("T15")
def test_a_quota_on_jobs_is_kept(crowd: Space) -> None:
    crowd.kubectl("create", "quota", "few", "--hard=count/finetunejobs.finetune-operator.io=1")
    eventually(lambda: crowd.get("quota", "few").get("status", {}).get("hard"), message="the quota counts")
    create(crowd, "first", suspend=True)
    done = crowd.cluster.kubectl("create", "-f", "-", input=json.dumps(manifest(crowd, "second")))
    assert "exceeded quota: few" in done.stderr, "layer: API server, ResourceQuota"
