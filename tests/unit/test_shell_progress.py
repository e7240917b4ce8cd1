"""The progress endpoint, over real TLS on loopback; the API server behind it is scripted."""

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from finetune_operator.api import names
from finetune_operator.shell import certificate, paths
from finetune_operator.shell.metrics import Metrics
from finetune_operator.shell.progress import Pace, ProgressEndpoint
from finetune_operator.shell.queue import Key, WorkQueue
from finetune_operator.shell.reports import ProgressPost, Reports
from finetune_operator.shell.tokens import TokenChecker, Unauthenticated, training_pod
from scripted_api import Answer, ScriptedApi, refusal

Manifest = dict[str, Any]
NOW = dt.datetime(2026, 1, 2, 4, 0, tzinfo=dt.UTC)
KEY = Key("team", "tuned")
POD = "/api/v1/namespaces/team/pods/tuned-train-1-x"
SERVICE = "finetune-operator.system.svc"


def pod(**changes: Any) -> Manifest:
    labels = {**names.labels("tuned", "train"), names.ATTEMPT_LABEL: "1", **changes.pop("labels", {})}
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": f"tuned-train-{labels[names.ATTEMPT_LABEL]}",
        "uid": "job-uid",
    }
    metadata = {"name": "tuned-train-1-x", "namespace": "team", "uid": "pod-uid", "labels": labels}
    metadata["ownerReferences"] = [{**owner, "controller": True}]
    return {"metadata": metadata, "status": {"phase": "Running", **changes}}


def review(**changes: Any) -> Manifest:
    extra = {
        "authentication.kubernetes.io/pod-name": ["tuned-train-1-x"],
        "authentication.kubernetes.io/pod-uid": ["pod-uid"],
    }
    user = {"username": "system:serviceaccount:team:default", "extra": changes.pop("extra", extra)}
    status = {"authenticated": True, "audiences": [names.PROGRESS_AUDIENCE], "user": user | changes.pop("user", {})}
    return {"status": status | changes}


def cluster(reviewed: Manifest | None = None, live: Manifest | None = None) -> ScriptedApi:
    answers: dict[tuple[str, str], Answer] = {
        ("POST", paths.TOKEN_REVIEWS): (201, reviewed or review()),
        ("GET", POD): (200, live or pod()),
    }
    return ScriptedApi(answers)


@dataclass
class Trainer:
    """A trainer that posts to a running endpoint."""

    session: aiohttp.ClientSession
    port: int
    reports: Reports
    queue: WorkQueue
    metrics: Metrics

    async def post(self, body: Any = None, job: str = "tuned", token: str = "token") -> tuple[int, str]:
        url = f"https://{SERVICE}:{self.port}/apis/finetune-operator.io/v1alpha1/namespaces/team/finetunejobs/{job}/progress"
        data = body if isinstance(body, str) else json.dumps(body if body is not None else report(1))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.post(url, data=data, headers=headers) as answer:
            return answer.status, await answer.text()


class _ToLoopback(aiohttp.abc.AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[aiohttp.abc.ResolveResult]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def endpoint(api: ScriptedApi) -> AsyncIterator[Trainer]:
    made = certificate.make(certificate.service_names("finetune-operator", "system"), dt.datetime.now(dt.UTC))
    queue, reports = WorkQueue(), Reports()
    metrics = Metrics(lambda: len(queue))
    async with api.client() as client:
        served = ProgressEndpoint(TokenChecker(client), reports, queue, metrics, lambda: NOW)
        runner = web.AppRunner(served.application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=made.context()).start()
        trust = certificate.ssl.create_default_context(cadata=made.authority.decode())
        connector = aiohttp.TCPConnector(ssl=trust, resolver=_ToLoopback())
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Trainer(session, runner.addresses[0][1], reports, queue, metrics)
        await runner.cleanup()


def report(step: int, **metrics: str) -> Manifest:
    figures = {"current_step": str(step), "total_steps": "40", **metrics}
    listed = [{"name": name, "value": value} for name, value in figures.items()]
    return {"trainerStatus": {"estimatedRemainingSeconds": 30, "metrics": listed}}


def once(api: ScriptedApi, *args: Any, **kwargs: Any) -> tuple[int, str]:
    async def run() -> tuple[int, str]:
        async with endpoint(api) as trainer:
            return await trainer.post(*args, **kwargs)

    return asyncio.run(run())


def test_a_report_is_kept_and_its_job_looked_at() -> None:
    async def run() -> None:
        async with endpoint(cluster()) as trainer:
            assert await trainer.post(report(10, loss="1.5")) == (200, "{}")
            newest = trainer.reports.newest(KEY)
            assert newest is not None
            assert (newest.step, newest.total_steps, newest.remaining_seconds) == (10, 40, 30)
            assert newest.metrics == {"loss": "1.5"}
            assert newest.received == NOW
            assert await trainer.queue.get() == KEY
            assert b'finetune_progress_posts_total{status="200"} 1.0' in trainer.metrics.text()

    asyncio.run(run())


def test_the_token_is_reviewed_for_our_audience_once_in_a_minute() -> None:
    api = cluster()

    async def run() -> None:
        async with endpoint(api) as trainer:
            assert [(await trainer.post(token="a"))[0], (await trainer.post(token="a"))[0]] == [200, 429]

    asyncio.run(run())
    reviews = [asked.body["spec"] for asked in api.asked if asked.path == paths.TOKEN_REVIEWS]
    assert reviews == [{"token": "a", "audiences": [names.PROGRESS_AUDIENCE]}]


@pytest.mark.parametrize(
    "reviewed",
    [
        review(authenticated=False),
        review(audiences=[]),
        review(audiences=["https://kubernetes.default.svc"]),
        review(extra={}),
        review(user={"username": "system:node:n1"}),
        review(
            extra={
                "authentication.kubernetes.io/pod-name": ["tuned-train-1-x"],
                "authentication.kubernetes.io/pod-uid": ["old"],
            }
        ),
    ],
)
def test_a_token_that_is_not_a_training_pods_is_refused(reviewed: Manifest) -> None:
    assert once(cluster(reviewed))[0] == 401


@pytest.mark.parametrize("live", [pod(phase="Succeeded"), pod(labels={names.STAGE_LABEL: "prepare"})])
def test_a_pod_that_does_not_train_may_not_report(live: Manifest) -> None:
    assert once(cluster(live=live))[0] == 401


def test_another_jobs_pod_is_told_whose_it_is() -> None:
    assert once(cluster(), job="other") == (403, "the token belongs to team/tuned, not to team/other")


def test_without_a_token_nothing_is_asked_of_the_api_server() -> None:
    api = cluster()
    assert once(api, token="")[0] == 401
    assert api.asked == []


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("not json", "JSON"),
        ({"trainerStatus": {"progressPercentage": 101}}, "trainerStatus.progressPercentage"),
        ({"trainerStatus": {"metrics": [{"name": "x", "value": "1"}] * 33}}, "trainerStatus.metrics"),
        ({"trainerStatus": {"metrics": [{"name": "x" * 65, "value": "1"}]}}, "trainerStatus.metrics.0.name"),
        ({"trainerStatus": {"metrics": [{"name": "x", "value": "a\nb"}]}}, "trainerStatus.metrics.0.value"),
        ({}, "trainerStatus"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_with_the_field(body: Any, named: str) -> None:
    status, text = once(cluster(), body)
    assert status == 400
    assert named in text


def test_a_body_that_is_too_large_is_refused() -> None:
    assert once(cluster(), " " * 20_000)[0] == 413


def test_where_the_api_server_does_not_answer_the_trainer_is_asked_to_come_back() -> None:
    api = cluster()
    api.answers["POST", paths.TOKEN_REVIEWS] = (500, refusal("InternalError", "etcd is away"))
    assert once(api)[0] == 503


@pytest.mark.parametrize(
    ("said", "step"),
    [("7", 7), ("1e+06", 1_000_000), ("", 0), ("many", 0), ("-1", 0), ("nan", 0), ("inf", 0), ("1e99", 0)],
)
def test_steps_are_whole_however_they_are_written(said: str, step: int) -> None:
    post = {"trainerStatus": {"metrics": [{"name": "current_step", "value": said}]}}
    assert ProgressPost.model_validate(post).report(NOW).step == step


def test_an_old_attempt_does_not_overwrite_the_report_of_a_later_one() -> None:
    reports = Reports()
    made = {attempt: ProgressPost.model_validate(report(attempt)).report(NOW) for attempt in (1, 2, 3)}
    assert reports.put(KEY, 2, made[2])
    assert not reports.put(KEY, 1, made[1])
    assert reports.newest(KEY) == made[2]
    assert reports.put(KEY, 3, made[3])
    assert reports.newest(KEY) == made[3]


@pytest.mark.parametrize(("attempt", "number"), [("7", 7), ("", None), ("x", None), ("9" * 10, None)])
def test_the_attempt_is_read_from_the_pods_label(attempt: str, number: int | None) -> None:
    trainer = training_pod(pod(labels={names.ATTEMPT_LABEL: attempt}), "pod-uid")
    assert (trainer.attempt if trainer else None) == number


@pytest.mark.parametrize("owner", [[], [{"kind": "ReplicaSet", "name": "tuned-train-1"}], [{"name": "mine"}]])
def test_labels_alone_make_no_training_pod(owner: list[Manifest]) -> None:
    forged = pod()
    standing = forged["metadata"]["ownerReferences"][0]
    forged["metadata"]["ownerReferences"] = [{**standing, **entry} for entry in owner]
    assert training_pod(forged, "pod-uid") is None


def test_verdicts_on_tokens_are_forgotten_after_a_minute() -> None:
    api, time = cluster(), [0.0]

    async def run() -> None:
        async with api.client() as client:
            checker = TokenChecker(client, lambda: time[0])
            await checker.trainer("a")
            api.answers["POST", paths.TOKEN_REVIEWS] = (201, review(authenticated=False))
            time[0] = 59.0
            await checker.trainer("a")
            time[0] = 61.0
            with pytest.raises(Unauthenticated):
                await checker.trainer("a")

    asyncio.run(run())


def test_the_pace_is_kept_for_each_job_by_itself() -> None:
    time = [0.0]
    pace = Pace(1.0, lambda: time[0])
    assert [pace.allows(KEY), pace.allows(KEY), pace.allows(Key("team", "other"))] == [True, False, True]
    time[0] = 1.0
    assert pace.allows(KEY)
