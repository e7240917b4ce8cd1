"""The operator's process against a real control plane without a node: the test plays the kubelet where pods are to end."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_devcluster import Cluster
from finetune_operator.api import names
from finetune_operator.api.outcome import TerminationMessage
from finetune_operator.shell.rights import RULES
from job_space import Space, create
from operator_process import OperatorProcess, grant
from progress_posts import post, progress, token
from support_wait import eventually

CRD = Path(__file__).parents[2] / "crds" / "finetunejobs.yaml"
Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def control_plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    own = Cluster(f"shell-{uuid.uuid4().hex[:6]}", tmp_path_factory.mktemp("shell"), node=False)
    try:
        yield own.up()
    finally:
        own.down(keep_state=request.session.testsfailed > 0)


@pytest.fixture(scope="module")
def operator(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """An operator that was started before the CRD was there, with a short resync."""
    made = OperatorProcess(control_plane, tmp_path_factory.mktemp("operator"), resyncSeconds=5)
    made.grant_rights()
    made.start(ready=False)
    try:
        eventually(lambda: "install the CRD" in made.log_text(), message="the operator says what is missing")
        assert (made.probe("healthz"), made.probe("readyz")) == (200, 503)
        assert control_plane.kubectl("apply", "--server-side", "-f", str(CRD)).returncode == 0
        eventually(lambda: made.probe("readyz") == 200, message="the operator is ready once the CRD is there")
        yield made
    finally:
        if made.is_running():
            made.kill()


@pytest.fixture
def space(control_plane: Cluster, operator: OperatorProcess) -> Iterator[Space]:
    made = Space(control_plane, f"shell-{uuid.uuid4().hex[:8]}")
    control_plane.kubectl("create", "namespace", made.name)
    eventually(lambda: made.exists("serviceaccount", "default"), message="default service account")
    if not operator.is_running():
        operator.start()
    yield made
    control_plane.kubectl("delete", "namespace", made.name, "--wait=false")


def test_a_new_job_gets_its_claim_its_config_and_its_prepare_job_and_says_so(space: Space) -> None:
    create(space, "fresh")
    # There is no node: the scheduler holds the prepare pod back
    space.await_reason("fresh", "Queued")
    assert {"PersistentVolumeClaim/fresh-data", "ConfigMap/fresh-run", "Job/fresh-prepare"} <= set(space.children())
    status = space.get("finetunejob", "fresh")["status"]
    assert status["observedGeneration"] == 1
    assert {entry["observedGeneration"] for entry in status["conditions"]} == {1}
    told = ("events", "--field-selector=involvedObject.kind=FineTuneJob")
    eventually(lambda: {event["reason"] for event in space.items(*told)} == {"Preparing", "Queued"}, message="events")
    assert {event["source"]["component"] for event in space.items(*told)} == {"finetune-operator"}


def test_an_operator_that_was_killed_goes_on_where_it_was(space: Space, operator: OperatorProcess) -> None:
    create(space, "steady")
    space.pod_of("steady-prepare")
    before = space.children()
    operator.kill()
    operator.start()
    space.finish_prepare("steady")
    space.pod_of("steady-train-0")
    after = space.children()
    assert {child: uid for child, uid in after.items() if child in before} == before
    assert sorted(child for child in after if child.startswith("Job/")) == ["Job/steady-prepare", "Job/steady-train-0"]


def test_an_idle_operator_writes_nothing(space: Space) -> None:
    create(space, "idle")
    space.finish_prepare("idle")
    space.pod_of("idle-train-0")
    # A resync falls into this time, at which whatever is late is caught up with
    settled = eventually(lambda: unchanged(space.versions, 6.0), 180, "nothing is written any more")
    # Four resyncs fall into this time
    unchanged(space.versions, 20.0)
    assert space.versions() == settled


def unchanged(look: Callable[[], Manifest], seconds: float) -> Manifest | None:
    """What was seen, if it stayed the same for so many seconds; None as soon as it did not."""
    first, deadline = look(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        if look() != first:
            return None
    return first


def test_a_trainers_report_shows_in_the_status(space: Space, operator: OperatorProcess) -> None:
    create(space, "told")
    space.finish_prepare("told")
    bearer = token(space, space.pod_of("told-train-0"))
    eventually(lambda: post(operator, space, "told", bearer, progress(10, loss="1.25")) == 200, message="it is taken")
    shown = eventually(lambda: space.get("finetunejob", "told")["status"].get("progress"), message="progress")
    assert (shown["summary"], shown["percent"], shown["loss"]) == ("10/40", "25%", "1.25")
    assert 'finetune_progress_posts_total{status="200"}' in operator.get("metrics")[1]


def test_only_the_jobs_own_training_pods_may_report(space: Space, operator: OperatorProcess) -> None:
    for job in ("mine", "other"):
        create(space, job)
        space.finish_prepare(job)
    own, foreign = space.pod_of("mine-train-0"), space.pod_of("other-train-0")
    prepare = space.pod_of("mine-prepare")
    unbound = space.kubectl("create", "token", "default", f"--audience={names.PROGRESS_AUDIENCE}").strip()
    body = progress(1)
    answers = {
        "no token": post(operator, space, "mine", "", body),
        "made up": post(operator, space, "mine", "made.up.token", body),
        "for the API server": post(operator, space, "mine", token(space, own, "https://kubernetes.default.svc"), body),
        "of no pod": post(operator, space, "mine", unbound, body),
        "of a pod that does not train": post(operator, space, "mine", token(space, prepare), body),
        "of another job's pod": post(operator, space, "mine", token(space, foreign), body),
    }
    assert answers == {
        "no token": 401,
        "made up": 401,
        "for the API server": 401,
        "of no pod": 401,
        "of a pod that does not train": 401,
        "of another job's pod": 403,
    }
    assert "progress" not in space.get("finetunejob", "mine")["status"]


def test_a_report_that_makes_no_sense_is_refused(space: Space, operator: OperatorProcess) -> None:
    create(space, "odd")
    space.finish_prepare("odd")
    bearer = token(space, space.pod_of("odd-train-0"))
    nonsense = '{"trainerStatus": {"progressPercentage": 101}}'
    eventually(lambda: post(operator, space, "odd", bearer, nonsense) == 400, message="400")
    eventually(lambda: post(operator, space, "odd", bearer, " " * 17_000) == 413, message="413 once the pace allows it")


def test_a_deleted_job_leaves_nothing(space: Space) -> None:
    create(space, "gone")
    space.finish_prepare("gone")
    space.pod_of("gone-train-0")
    space.kubectl("delete", "finetunejob", "gone")
    eventually(lambda: not leftovers(space), message="all children are collected")


def leftovers(space: Space) -> dict[str, str]:
    # Nobody unmounts the claim of a pod that was never on a node, so its protection is lifted by hand
    for pod in space.items("pods", "-l", names.JOB_NAME_LABEL):
        if "deletionTimestamp" in pod["metadata"]:
            space.cluster.kubectl(
                "-n", space.name, "delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0"
            )
    return space.children()


def test_what_foreign_hands_changed_is_put_right(space: Space) -> None:
    create(space, "kept")
    space.pod_of("kept-prepare")
    wanted = space.get("configmap", "kept-run")["data"]
    space.kubectl("patch", "configmap", "kept-run", "--type=merge", "-p", '{"data": {"run.json": "{}"}}')
    eventually(lambda: space.get("configmap", "kept-run")["data"] == wanted, message="the ConfigMap is healed")
    space.kubectl("delete", "configmap", "kept-run")
    eventually(lambda: space.exists("configmap", "kept-run"), message="the ConfigMap is back")


def test_an_object_of_somebody_else_is_left_alone_and_named(space: Space) -> None:
    space.kubectl("create", "configmap", "taken-run", "--from-literal=mine=yes")
    create(space, "taken")
    space.await_reason("taken", "NameTaken")
    assert "ConfigMap taken-run" in space.condition("taken", "Ready")["message"]
    assert space.get("configmap", "taken-run")["data"] == {"mine": "yes"}


def test_a_quota_that_refuses_a_child_is_named_until_it_is_lifted(space: Space) -> None:
    space.kubectl("create", "quota", "none", "--hard=count/jobs.batch=0")
    eventually(lambda: space.get("quota", "none").get("status", {}).get("hard"), message="the quota counts")
    create(space, "refused")
    told = "exceeded quota: none"
    eventually(lambda: told in space.condition("refused", "Ready").get("message", ""), message="Ready names the quota")
    warnings = eventually(lambda: space.items("events", "--field-selector=reason=Forbidden"), message="a warning event")
    assert all(told in event["message"] and event["type"] == "Warning" for event in warnings)
    space.kubectl("delete", "quota", "none")
    eventually(lambda: space.exists("job", "refused-prepare"), 180, "the Job is made once it may be")


def test_a_missing_right_is_named_until_it_is_given(space: Space) -> None:
    without_pods = [dict(rule) for rule in RULES if "pods" not in rule["resources"]]
    grant(space.cluster, without_pods)
    try:
        create(space, "powerless")
        warnings = eventually(
            lambda: space.items("events", "--field-selector=reason=Forbidden"), message="a warning event"
        )
        assert 'cannot list resource "pods"' in warnings[0]["message"]
    finally:
        grant(space.cluster, [dict(rule) for rule in RULES])
    eventually(lambda: space.exists("job", "powerless-prepare"), 180, "the job goes on once it may")


def test_a_pod_that_cannot_be_scheduled_is_quoted(space: Space) -> None:
    create(space, "waits")
    eventually(
        lambda: "no nodes available to schedule pods" in space.condition("waits", "Ready").get("message", ""),
        message="Ready quotes the scheduler",
    )


def test_a_failed_stage_is_told_in_the_words_of_its_pod(space: Space) -> None:
    create(space, "fails")
    said = TerminationMessage("InvalidData", "chat.jsonl:7: no messages", {})
    space.end_pod(space.pod_of("fails-prepare"), 65, said.encode().decode())
    failed = eventually(
        lambda: space.condition("fails", "Failed").get("status") == "True" and space.condition("fails", "Failed")
    )
    assert failed["reason"] == "InvalidData"
    assert "chat.jsonl:7: no messages" in failed["message"]


def test_sigterm_ends_the_operator_at_once(space: Space, operator: OperatorProcess) -> None:
    began = time.monotonic()
    assert operator.stop() == 0
    # It waits for nothing: a watch of the API server's lasts for minutes
    assert time.monotonic() - began < 30
    assert "Traceback" not in operator.log_text()


def test_no_token_stands_in_the_log(space: Space, operator: OperatorProcess) -> None:
    assert "eyJ" not in operator.log_text()


def test_fields_of_a_newer_crd_are_ignored_and_values_of_one_are_named(space: Space) -> None:
    schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties"
    loosened = [
        {"op": "add", "path": f"{schema}/horizon", "value": {"type": "string"}},
        {"op": "add", "path": f"{schema}/method/enum/-", "value": "DoRA"},
    ]
    space.kubectl("patch", "crd", "finetunejobs.finetune-operator.io", "--type=json", "-p", json.dumps(loosened))
    eventually(lambda: space.cluster.kubectl("explain", "finetunejob.spec.horizon").returncode == 0, message="new CRD")
    create(space, "newer", horizon="wide")
    space.await_reason("newer", "Queued")
    create(space, "strange", method="DoRA")
    space.await_reason("strange", "InvalidSpec")
    failed = space.condition("strange", "Failed")
    assert failed["status"] == "True"
    assert "spec.method" in failed["message"]
    assert "DoRA" in failed["message"]
    assert not [child for child in space.children() if "strange" in child]
