"""What is read before a plan is made."""

import asyncio
import datetime as dt
from typing import Any

import pytest

from finetune_operator.api import names
from finetune_operator.plan.types import Observed
from finetune_operator.shell.gather import Gatherer, named_children
from finetune_operator.shell.job_view import InvalidSpec, UnreadableStatus, read_job
from finetune_operator.shell.logtail import LogTails
from finetune_operator.shell.queue import Key
from finetune_operator.shell.reports import Reports
from scripted_api import Answer, ScriptedApi

Manifest = dict[str, Any]
UID = "11111111-1111-1111-1111-111111111111"
NOW = dt.datetime(2026, 1, 2, 4, 0, tzinfo=dt.UTC)
JOBS = "/apis/batch/v1/namespaces/team/jobs"
PODS = "/api/v1/namespaces/team/pods"
LOG = f"{PODS}/tuned-train-0-x/log"


def fine_tune_job(status: Manifest | None = None, **spec: Any) -> Manifest:
    return {
        "metadata": {
            "name": "tuned",
            "namespace": "team",
            "uid": UID,
            "generation": 3,
            "creationTimestamp": "2026-01-02T03:04:05Z",
        },
        "spec": {"model": {"source": "hf://o/m"}, "datasets": [{"source": "hf://o/d"}], "method": "LoRA", **spec},
        "status": status or {},
    }


def train_job(uid: str = "job-uid", owner: str = UID, **content: Any) -> Manifest:
    owners = [{"kind": "FineTuneJob", "name": "tuned", "uid": owner, "controller": True}]
    return {"metadata": {"name": "tuned-train-0", "uid": uid, "ownerReferences": owners}, "spec": {}, **content}


def failed_pod() -> Manifest:
    terminated = {"exitCode": 1, "reason": "Error", "finishedAt": "2026-01-02T03:30:00Z"}
    return {
        "metadata": {
            "name": "tuned-train-0-x",
            "uid": "pod-uid",
            "ownerReferences": [{"kind": "Job", "name": "tuned-train-0", "uid": "job-uid", "controller": True}],
        },
        "status": {"phase": "Failed", "containerStatuses": [{"name": "train", "state": {"terminated": terminated}}]},
    }


def observe(api: ScriptedApi, manifest: Manifest, times: int = 1, log_lines: int = 20) -> Observed:
    async def run() -> Observed:
        async with api.client() as client:
            gatherer = Gatherer(
                api=client,
                logs=LogTails(client, log_lines),
                reports=Reports(),
                certificate="PEM",
                operator_namespace="system",
                now=lambda: NOW,
            )
            for _ in range(times - 1):
                await gatherer.observe(manifest)
            return await gatherer.observe(manifest)

    return asyncio.run(run())


def world(*jobs: Manifest, pods: tuple[Manifest, ...] = ()) -> ScriptedApi:
    listed: dict[tuple[str, str], Answer] = {
        ("GET", JOBS): (200, {"items": list(jobs)}),
        ("GET", PODS): (200, {"items": list(pods)}),
        ("GET", LOG): (200, "step 1\nRuntimeError: token hf_abcdefghijklmnop refused"),
    }
    return ScriptedApi(listed)


def test_every_name_that_a_child_could_have_is_looked_at() -> None:
    spec = {
        "model": {"source": "pvc://models/base"},
        "evaluation": {"dataset": {"source": "pvc://held-back/rows"}},
        "storage": {"claim": "shared", "accessMode": "ReadWriteMany"},
        "resources": {"nodes": 2, "gpusPerNode": 1},
    }
    found = set(named_children(read_job(fine_tune_job({"attempt": 2}, **spec))))
    assert {("Job", name) for name in ("tuned-prepare", "tuned-train-2", "tuned-train-3", "tuned-merge")} <= found
    assert {("Service", name) for name in ("tuned", "tuned-train-2", "tuned-train-3")} <= found
    assert {("PersistentVolumeClaim", name) for name in ("tuned-data", "models", "held-back", "shared")} <= found
    assert {("Deployment", "tuned"), ("ConfigMap", "tuned-run")} <= found


def test_children_of_others_under_our_names_are_seen_too() -> None:
    path = "/api/v1/namespaces/team/configmaps/tuned-run"
    api = world()
    api.answers["GET", path] = (200, {"kind": "ConfigMap", "metadata": {"name": "tuned-run", "uid": "x"}})
    assert set(observe(api, fine_tune_job()).children) == {("ConfigMap", "tuned-run")}


@pytest.mark.parametrize(
    "status",
    [
        {"failed": 1},
        {"conditions": [{"type": "Failed", "status": "True"}]},
        {"conditions": [{"type": "FailureTarget", "status": "True"}]},
    ],
)
def test_the_end_of_a_failed_job_bears_its_last_words_without_secrets(status: Manifest) -> None:
    end = observe(world(train_job(status=status), pods=(failed_pod(),)), fine_tune_job()).ends["tuned-train-0"]
    assert (end.pod, end.exit_code) == ("tuned-train-0-x", 1)
    assert end.logs[-1] == "RuntimeError: token [redacted] refused"


def test_a_log_is_fetched_once_for_each_end() -> None:
    api = world(train_job(status={"failed": 1}), pods=(failed_pod(),))
    observe(api, fine_tune_job(), times=3)
    (asked,) = [asked for asked in api.asked if asked.path == LOG]
    assert asked.query == {"container": "train", "tailLines": "20", "limitBytes": "1048576"}


def test_no_log_is_fetched_where_none_is_wanted() -> None:
    api = world(train_job(status={"failed": 1}), pods=(failed_pod(),))
    assert observe(api, fine_tune_job(), log_lines=0).ends["tuned-train-0"].logs == ()
    assert LOG not in [asked.path for asked in api.asked]


def test_a_log_that_is_gone_does_not_hide_the_end() -> None:
    api = world(train_job(status={"failed": 1}), pods=(failed_pod(),))
    del api.answers["GET", LOG]
    assert observe(api, fine_tune_job()).ends["tuned-train-0"].exit_code == 1


def test_a_running_job_has_no_end() -> None:
    assert observe(world(train_job(status={"active": 1}), pods=(failed_pod(),)), fine_tune_job()).ends == {}


def test_ends_of_a_job_that_is_done_are_not_read_again() -> None:
    done = {"type": "Failed", "status": "True", "reason": "InvalidData", "lastTransitionTime": "2026-01-02T03:30:00Z"}
    api = world(train_job(status={"failed": 1}), pods=(failed_pod(),))
    assert observe(api, fine_tune_job({"conditions": [done]})).ends == {}
    assert LOG not in [asked.path for asked in api.asked]


def test_ends_of_somebody_elses_job_are_not_taken_for_ours() -> None:
    foreign = train_job(owner="another-uid", status={"failed": 1})
    assert observe(world(foreign, pods=(failed_pod(),)), fine_tune_job()).ends == {}


def test_a_job_that_a_queue_holds_back_says_so() -> None:
    held = train_job(status={})
    held["spec"] = {"suspend": True}
    held["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpus"}
    assert observe(world(held), fine_tune_job()).waiting == {"tuned-train-0": "waits for admission by queue gpus"}


def test_pods_that_a_policy_refuses_to_a_deployment_are_told_of() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "message": 'pods "tuned-" is forbidden: exceeded quota'}
    owners = [{"kind": "FineTuneJob", "name": "tuned", "uid": UID, "controller": True}]
    live = {"kind": "Deployment", "metadata": {"name": "tuned", "uid": "d", "ownerReferences": owners}}
    api = world()
    path = "/apis/apps/v1/namespaces/team/deployments/tuned"
    api.answers["GET", path] = (200, {**live, "status": {"conditions": [refused]}})
    assert observe(api, fine_tune_job()).waiting == {"tuned": 'pods "tuned-" is forbidden: exceeded quota'}


@pytest.mark.parametrize("metadata", [None, {"deletionTimestamp": "2026-01-02T03:04:05Z"}])
def test_a_job_that_is_gone_or_going_is_not_looked_at(metadata: Manifest | None) -> None:
    async def run() -> Manifest | None:
        async with api.client() as client:
            gatherer = Gatherer(
                api=client, logs=LogTails(client, 0), reports=Reports(), certificate="", operator_namespace=""
            )
            return await gatherer.fetch(Key("team", "tuned"))

    api = ScriptedApi()
    if metadata:
        path = "/apis/finetune-operator.io/v1alpha1/namespaces/team/finetunejobs/tuned"
        api.answers["GET", path] = (200, {"metadata": metadata})
    assert asyncio.run(run()) is None


def test_unknown_fields_of_a_newer_spec_are_ignored() -> None:
    job = read_job(fine_tune_job(horizon=7, model={"source": "hf://o/m", "sparkle": True}))
    assert job.spec.model.source == "hf://o/m"


def test_every_wrong_field_of_a_spec_is_named() -> None:
    with pytest.raises(InvalidSpec) as caught:
        read_job(fine_tune_job(method="DoRA", training={"epochs": -1, "scheduler": "Zigzag"}))
    text = str(caught.value)
    assert "spec.method" in text
    assert "DoRA" in text
    assert "spec.training.scheduler" in text


def test_a_status_that_cannot_be_read_stops_everything() -> None:
    with pytest.raises(UnreadableStatus, match=r"status\.attempt"):
        read_job(fine_tune_job({"attempt": "third"}))


def test_labels_of_our_own_children_select_jobs_and_pods() -> None:
    api = world()
    observe(api, fine_tune_job())
    listed = {asked.path: asked.query["labelSelector"] for asked in api.asked if "labelSelector" in asked.query}
    assert listed == {JOBS: f"{names.JOB_NAME_LABEL}=tuned", PODS: f"{names.JOB_NAME_LABEL}=tuned"}
