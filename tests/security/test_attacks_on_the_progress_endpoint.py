"""T2, T13, T18: posts of progress that nobody but the job's own training pod may send. The layer is the endpoint's authentication."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from finetune_operator.api import names
from job_space import Space, create
from operator_process import OperatorProcess, apply
from progress_posts import path_of, post, progress, send, token
from support_wait import eventually

Bearer = Callable[[Space, Space], str]


@pytest.fixture(scope="module")
def trained(team: Space) -> str:
    """A job in training, whose progress is attacked."""
    return _in_training(team, "told")


@pytest.fixture(scope="module")
def rival(team: Space, neighbour: Space) -> str:
    """Jobs of the same name in training: one beside the attacked job, one in another namespace."""
    _in_training(team, "rival")
    return _in_training(neighbour, "told")


@pytest.fixture(scope="module")
def authority(team: Space, trained: str) -> str:
    """The CA that the endpoint is known by."""
    return str(team.get("configmap", "told-run")["data"]["ca.crt"])


@pytest.fixture(scope="module")
def own(team: Space, trained: str) -> dict[str, str]:
    """What the attacked job's own training pod shows the endpoint."""
    return {"Authorization": f"Bearer {token(team, team.pod_of('told-train-0'))}"}


def _in_training(space: Space, job: str) -> str:
    create(space, job)
    space.finish_prepare(job)
    space.pod_of(f"{job}-train-0")
    return job


def _template(space: Space) -> dict[str, Any]:
    """A pod of the attacker's own with all labels of a training pod."""
    labels = {**names.labels("told", "train"), names.ATTEMPT_LABEL: "0", "forged": "yes"}
    spec = space.get("job", "told-train-0")["spec"]["template"]["spec"]
    return {"metadata": {"labels": labels}, "spec": {**spec, "restartPolicy": "Always"}}


def _forged_pod(space: Space) -> str:
    template = _template(space)
    template["metadata"] |= {"name": "forged", "namespace": space.name}
    apply(space.cluster, {"apiVersion": "v1", "kind": "Pod", **template})
    return token(space, "forged")


def _pod_of_a_forged_deployment(space: Space) -> str:
    template = _template(space)
    spec = {"selector": {"matchLabels": template["metadata"]["labels"]}, "template": template}
    # Its ReplicaSet bears nearly the name of the attempt's Job.
    metadata = {"name": "told-train", "namespace": space.name}
    apply(space.cluster, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    pods = eventually(
        lambda: [
            pod for pod in space.items("pods", "-l", "forged=yes") if "pod-template-hash" in pod["metadata"]["labels"]
        ],
        message="the Deployment's pod",
    )
    return token(space, pods[0]["metadata"]["name"])


BEARERS: dict[str, tuple[Bearer, int]] = {
    "no token": (lambda team, _: "", 401),
    "a made-up token": (lambda team, _: "made.up.token", 401),
    "a JSON web token that signs nothing": (lambda team, _: "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.", 401),
    "a token for the API server": (
        lambda team, _: token(team, team.pod_of("told-train-0"), "https://kubernetes.default.svc"),
        401,
    ),
    "a token of no pod": (
        lambda team, _: team.kubectl("create", "token", "default", f"--audience={names.PROGRESS_AUDIENCE}").strip(),
        401,
    ),
    "a token of the prepare pod": (lambda team, _: token(team, team.pod_of("told-prepare")), 401),
    "a token of a bare pod with the labels of training": (lambda team, _: _forged_pod(team), 401),
    "a token of a Deployment's pod with these labels": (lambda team, _: _pod_of_a_forged_deployment(team), 401),
    "a token of another job": (lambda team, _: token(team, team.pod_of("rival-train-0")), 403),
    "a token of the same name in another namespace": (
        lambda _, neighbour: token(neighbour, neighbour.pod_of("told-train-0")),
        403,
    ),
}


@pytest.mark.threat("T18")
@pytest.mark.threat("T2")
@pytest.mark.parametrize("who", BEARERS)
def test_nobody_else_reports(
    team: Space, neighbour: Space, operator: OperatorProcess, authority: str, rival: str, who: str
) -> None:
    bearer, answer = BEARERS[who]
    shown = bearer(team, neighbour)
    headers = {"Authorization": f"Bearer {shown}"} if shown else {}
    assert send(operator, authority, "POST", path_of("team-a", "told"), progress(39, loss="0.0"), headers) == answer
    assert "progress" not in team.get("finetunejob", "told")["status"]


PATHS = {
    "climbs": "/apis/finetune-operator.io/v1alpha1/namespaces/team-b/../team-a/finetunejobs/told/progress",
    "climbs, encoded": "/apis/finetune-operator.io/v1alpha1/namespaces/team-b%2F..%2Fteam-a/finetunejobs/told/progress",
    "names a subresource": f"{path_of('team-a', 'told')}/../status",
    "has a doubled slash": path_of("team-a", "told").replace("/finetunejobs", "//finetunejobs"),
    "names another's job, encoded": path_of("team-b", "%74old"),
    "is Kubeflow's": "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team-a/trainjobs/told/status",
}


@pytest.mark.threat("T18")
@pytest.mark.parametrize("how", PATHS)
def test_no_trick_with_the_path_reaches_a_job(
    neighbour: Space, operator: OperatorProcess, authority: str, own: dict[str, str], rival: str, how: str
) -> None:
    assert send(operator, authority, "POST", PATHS[how], progress(39), own) in (403, 404)
    assert "progress" not in neighbour.get("finetunejob", "told")["status"]


@pytest.mark.threat("T13")
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE"])
def test_the_endpoint_takes_posts_only(operator: OperatorProcess, authority: str, method: str) -> None:
    assert send(operator, authority, method, path_of("team-a", "told"), "", {}) == 405


@pytest.mark.threat("T13")
@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/api/v1/secrets", "/debug/pprof/"])
def test_nothing_else_answers_on_the_progress_port(operator: OperatorProcess, authority: str, path: str) -> None:
    assert send(operator, authority, "GET", path, "", {}) == 404


BODIES = {
    "17 KB": (" " * 17_000, 413),
    "no JSON": ("current_step=3", 400),
    "NaN for a share": ('{"trainerStatus": {"progressPercentage": NaN}}', 400),
    "a share above 100": ('{"trainerStatus": {"progressPercentage": 101}}', 400),
    "2000 levels": ('{"trainerStatus":' * 900 + "1" + "}" * 900, 400),
    "100 figures": (json.dumps({"trainerStatus": {"metrics": [{"name": "x", "value": "1"}] * 100}}), 400),
    "a figure of escape sequences": (
        json.dumps({"trainerStatus": {"metrics": [{"name": "loss", "value": "\x1b[2J"}]}}),
        400,
    ),
}


@pytest.mark.threat("T18")
@pytest.mark.parametrize("what", BODIES)
def test_a_body_that_makes_no_sense_is_refused(
    operator: OperatorProcess, authority: str, own: dict[str, str], what: str
) -> None:
    body, answer = BODIES[what]
    # One post a second is let through, whatever it holds.
    eventually(
        lambda: send(operator, authority, "POST", path_of("team-a", "told"), body, own) == answer,
        message="layer: endpoint, bounds",
    )
    assert operator.probe("healthz") == 200


@pytest.mark.threat("T18")
def test_figures_that_are_no_numbers_end_up_as_words(team: Space, operator: OperatorProcess, rival: str) -> None:
    bearer = token(team, team.pod_of("rival-train-0"))
    odd = {"current_step": "NaN", "total_steps": "inf", "loss": "nan", "learning_rate": "1e999"}
    odd |= {"tflops_per_second": "inf", "share_of_limit": "1e999", "data_wait_share": "none"}
    eventually(lambda: post(operator, team, "rival", bearer, progress(0, **odd)) == 200, message="it may pass")
    shown = eventually(lambda: team.get("finetunejob", "rival")["status"].get("progress"), message="progress")
    assert (shown["step"], shown["totalSteps"], shown["percent"]) == (0, 0, "0%")
    assert (shown["tflopsPerSecond"], shown["shareOfLimit"], shown["dataWaitShare"]) == ("inf", "inf%", "none")


@pytest.mark.threat("T18")
def test_a_report_repeated_after_its_pod_has_ended_changes_nothing(team: Space, operator: OperatorProcess) -> None:
    job = _in_training(team, "over")
    pod = team.pod_of("over-train-0")
    bearer = token(team, pod)
    team.end_pod(pod, 70, "the end")
    eventually(lambda: team.condition(job, "Failed").get("status") == "True", message="the job fails")
    assert post(operator, team, job, bearer, progress(39, loss="0.0")) == 401
    assert "progress" not in team.get("finetunejob", job)["status"]
