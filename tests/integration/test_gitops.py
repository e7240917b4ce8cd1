"""What ArgoCD, Flux and Helm see of FineTuneJobs on a real API server: no difference, no false green, nothing trained twice."""

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import argocd
from chart import helm
from finetune_devcluster import Cluster
from finetune_operator.api import names
from job_lives import Moment, Recorder, completed_life, edited, failed_life, suspended_life, whole_life
from job_space import Manifest, Space, manifest
from kstatus import Verdict, compute
from operator_process import NAMESPACE, OperatorProcess
from support_wait import eventually

CRD = Path(__file__).parents[2] / "crds" / "finetunejobs.yaml"
STAGES = {
    # stage: (ArgoCD's health, kstatus' verdict)
    "unseen": ("Progressing", Verdict.IN_PROGRESS),
    "Queued": ("Progressing", Verdict.IN_PROGRESS),
    "Preparing": ("Progressing", Verdict.IN_PROGRESS),
    "Training": ("Progressing", Verdict.IN_PROGRESS),
    "Retrying": ("Progressing", Verdict.IN_PROGRESS),
    "Merging": ("Progressing", Verdict.IN_PROGRESS),
    "Deploying": ("Progressing", Verdict.IN_PROGRESS),
    "Serving": ("Healthy", Verdict.CURRENT),
    "Completed": ("Healthy", Verdict.CURRENT),
    "Suspended": ("Suspended", Verdict.IN_PROGRESS),
    "Failed": ("Degraded", Verdict.FAILED),
}
TRACKING = {
    "annotations": {"argocd.argoproj.io/tracking-id": "finetune-jobs:finetune-operator.io/FineTuneJob:team/chain"},
    "labels": {"app.kubernetes.io/instance": "finetune-jobs"},
}


@pytest.fixture(scope="module")
def control_plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    own = Cluster(f"gitops-{uuid.uuid4().hex[:6]}", tmp_path_factory.mktemp("gitops"), node=False)
    try:
        assert own.up().kubectl("apply", "--server-side", "-f", str(CRD)).returncode == 0
        yield own
    finally:
        own.down(keep_state=request.session.testsfailed > 0)


@pytest.fixture(scope="module")
def operator(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """The operator, not started yet."""
    made = OperatorProcess(control_plane, tmp_path_factory.mktemp("operator"), resyncSeconds=5, retryDelaySeconds=15)
    made.grant_rights()
    try:
        yield made
    finally:
        if made.is_running():
            made.kill()


@pytest.fixture(scope="module")
def space(control_plane: Cluster) -> Space:
    made = Space(control_plane, f"gitops-{uuid.uuid4().hex[:8]}")
    control_plane.kubectl("create", "namespace", made.name)
    eventually(lambda: made.exists("serviceaccount", "default"), message="default service account")
    return made


def from_git(space: Space, name: str, **spec: Any) -> Manifest:
    """A manifest with the marks that ArgoCD puts on what it syncs."""
    made = manifest(space, name, **spec)
    return {**made, "metadata": made["metadata"] | TRACKING}


@pytest.fixture(scope="module")
def served(space: Space) -> Manifest:
    return from_git(space, "chain", serving={"gpus": 0})


@pytest.fixture(scope="module")
def lives(space: Space, operator: OperatorProcess, served: Manifest) -> Recorder:
    """Jobs that have been through every stage; the served one serves again."""
    recorder = Recorder(space)
    whole_life(recorder, served, operator.start)
    failed_life(recorder, from_git(space, "failing"))
    completed_life(recorder, from_git(space, "plain", merge={"enabled": False}))
    suspended_life(recorder, served)
    argocd.sync(space.cluster, served)
    recorder.run(recorder.serving_pod("chain"))
    space.await_reason("chain", "Serving")
    return recorder


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def moment(stage: str, lives: Recorder) -> Moment:
    return lives.moments[stage]


def without_bookkeeping(job: Manifest) -> Manifest:
    metadata = {key: value for key, value in job["metadata"].items() if key != "managedFields"}
    return {**job, "metadata": metadata}


def test_syncing_the_same_manifest_again_would_change_nothing(moment: Moment) -> None:
    assert without_bookkeeping(moment.synced) == without_bookkeeping(moment.job)


def test_applying_the_same_manifest_with_kubectl_would_change_nothing(moment: Moment) -> None:
    assert without_bookkeeping(moment.applied) == without_bookkeeping(moment.job)


def test_git_alone_owns_the_spec_and_the_operator_the_status(stage: str, moment: Moment) -> None:
    owned = {entry["manager"]: set(entry["fieldsV1"]) for entry in moment.job["metadata"]["managedFields"]}
    expected = {"argocd-controller": {"f:metadata", "f:spec"}}
    assert owned == expected | ({} if stage == "unseen" else {"finetune-operator": {"f:status"}})


def test_argocd_and_kstatus_say_how_far_it_is(stage: str, moment: Moment) -> None:
    assert (argocd.health(moment.job)["status"], compute(moment.job)) == STAGES[stage]


def test_argocds_marks_stay_on_the_job_so_that_no_child_is_pruned(space: Space, lives: Recorder) -> None:
    children = space.items("jobs,deployments,services,configmaps,pods", "-l", names.JOB_NAME_LABEL)
    assert {child["kind"] for child in children} == {"Job", "Deployment", "Service", "ConfigMap", "Pod"}
    for child in children:
        assert "argocd.argoproj.io/tracking-id" not in child["metadata"].get("annotations", {})
        assert "app.kubernetes.io/instance" not in child["metadata"]["labels"]


@pytest.mark.parametrize("child", ["configmap/chain-run", "service/chain", "deployment/chain"])
def test_a_child_that_is_kept_level_comes_back_when_it_is_deleted(space: Space, lives: Recorder, child: str) -> None:
    kind, name = child.split("/")
    before = space.get(kind, name)["metadata"]["uid"]
    space.kubectl("delete", kind, name)
    eventually(lambda: space.exists(kind, name), message=f"{child} is back")
    assert space.get(kind, name)["metadata"]["uid"] != before


def test_finished_jobs_that_are_deleted_do_not_run_again(
    space: Space, lives: Recorder, served: Manifest, operator: OperatorProcess
) -> None:
    space.kubectl("delete", "jobs", "-l", f"{names.JOB_NAME_LABEL}=chain")
    argocd.sync(space.cluster, served)
    # An operator that remembers nothing sees the job without its Jobs
    operator.kill()
    operator.start()
    argocd.sync(space.cluster, edited(served, ttlSecondsAfterFinished=86400))
    eventually(
        lambda: space.get("finetunejob", "chain")["status"]["observedGeneration"] >= 4, message="it was looked at"
    )
    assert space.items("jobs", "-l", f"{names.JOB_NAME_LABEL}=chain") == []


def test_a_job_that_argocds_action_suspends_stays_so_though_git_is_synced_again(space: Space, lives: Recorder) -> None:
    manifest = from_git(space, "paused")
    argocd.sync(space.cluster, manifest)
    for action, suspended in (("suspend", "True"), ("resume", "False")):
        spec = argocd.acted(space.get("finetunejob", "paused"), action)["spec"]
        patch = json.dumps({"spec": {"suspend": spec["suspend"]}})
        space.kubectl("patch", "finetunejob", "paused", "--type=merge", "--field-manager=argocd-server", "-p", patch)
        argocd.sync(space.cluster, manifest)
        eventually(
            lambda wanted=suspended: space.condition("paused", "Suspended").get("status") == wanted, message=action
        )
        assert space.get("finetunejob", "paused")["spec"]["suspend"] is (action == "suspend")


def test_a_job_that_was_pruned_and_is_synced_again_takes_up_the_claim_with_what_it_had_made(
    space: Space, lives: Recorder
) -> None:
    manifest = from_git(space, "restored", storage={"retention": "Retain"})
    argocd.sync(space.cluster, manifest)
    first = space.pod_of(names.prepare("restored"))
    claim = space.get("persistentvolumeclaim", names.volume("restored"))["metadata"]["uid"]
    space.kubectl("delete", "finetunejob", "restored", "--cascade=foreground")
    argocd.sync(space.cluster, manifest)
    eventually(lambda: space.pod_of(names.prepare("restored")) != first, message="it is prepared again")
    assert space.get("persistentvolumeclaim", names.volume("restored"))["metadata"]["uid"] == claim
    eventually(lambda: space.reason("restored") in ("Preparing", "Queued"), message="the claim is nobody else's")


@pytest.mark.parametrize("propagation", ["foreground", "background"])
def test_a_job_that_is_pruned_while_it_trains_goes_with_its_children_and_none_is_made_anew(
    space: Space, lives: Recorder, propagation: str
) -> None:
    name = f"pruned-{propagation}"
    argocd.sync(space.cluster, from_git(space, name))
    space.finish_prepare(name)
    lives.run(space.pod_of(names.train(name, 0)))
    space.await_reason(name, "Training")
    made = space.items("jobs", "-l", f"{names.JOB_NAME_LABEL}={name}")
    space.kubectl("delete", "finetunejob", name, f"--cascade={propagation}", "--wait=false")
    space.kubectl("delete", "pods", "-l", f"{names.JOB_NAME_LABEL}={name}", "--force", "--grace-period=0")
    eventually(lambda: not [child for child in space.children() if name in child], 120, "everything is gone")
    assert len(made) == 2
    assert not space.exists("finetunejob", name)
    told = space.items("events", "--field-selector=involvedObject.kind=Job,reason=SuccessfulCreate")
    started = [event["involvedObject"]["name"] for event in told if event["involvedObject"]["name"].startswith(name)]
    assert sorted(started) == [names.prepare(name), names.train(name, 0)]


def chart_with(folder: Path, job: Manifest) -> Path:
    """A chart that holds one FineTuneJob."""
    chart = folder / "jobs"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: jobs\nversion: 0.1.0\n")
    (chart / "templates" / "job.json").write_text(json.dumps(job))
    return chart


def waited_for(space: Space, chart: Path, job: Manifest, seconds: int) -> tuple[bool, str]:
    """Whether `helm install --wait` was content, and its words."""
    command = ("install", job["metadata"]["name"], chart, "--namespace", space.name, "--wait", f"--timeout={seconds}s")
    done = helm(*command, environment=space.cluster.client_environment())
    return done.returncode == 0, done.stderr


def test_helm_does_not_take_a_job_for_done_that_no_operator_has_seen(
    space: Space, lives: Recorder, operator: OperatorProcess, tmp_path: Path
) -> None:
    operator.kill()
    job = manifest(space, "unseen")
    content, words = waited_for(space, chart_with(tmp_path, job), job, 10)
    operator.start()
    assert not content
    assert "InProgress" in words


def test_helm_gives_up_on_a_job_that_has_failed(space: Space, lives: Recorder, tmp_path: Path) -> None:
    job = manifest(space, "ill")
    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(waited_for, space, chart_with(tmp_path, job), job, 400)
        lives.fail_prepare("ill", "rows.jsonl:3: messages is empty")
        content, words = waiting.result()
    assert not content
    assert "Failed" in words
    assert time.monotonic() - started < 300


def test_the_operator_that_did_all_this_has_no_rights_but_the_charts(space: Space, operator: OperatorProcess) -> None:
    who = f"system:serviceaccount:{NAMESPACE}:{NAMESPACE}"
    assert space.cluster.kubectl("auth", "can-i", "patch", "finetunejobs", f"--as={who}").returncode != 0
