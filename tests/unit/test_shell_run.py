"""Settings, refusals, status and events: what the operator says to people."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.status import Condition, ConditionStatus, FineTuneJobStatus
from finetune_operator.plan.types import Event, Plan
from finetune_operator.shell import refusals
from finetune_operator.shell.client import Api
from finetune_operator.shell.errors import ApiError, Request, api_error
from finetune_operator.shell.events import Events
from finetune_operator.shell.main import load_settings
from finetune_operator.shell.status_writer import write_status
from scripted_api import ScriptedApi, refusal

Manifest = dict[str, Any]
NOW = dt.datetime(2026, 1, 2, 4, 0, tzinfo=dt.UTC)
STATUS = "/apis/finetune-operator.io/v1alpha1/namespaces/team/finetunejobs/tuned/status"
EVENTS = "/api/v1/namespaces/team/events"


def ready(reason: str, message: str = "") -> Condition:
    return Condition(
        type="Ready",
        status=ConditionStatus.FALSE,
        reason=reason,
        message=message,
        last_transition_time="2026-01-02T03:00:00Z",
    )


def fine_tune_job(status: Manifest) -> Manifest:
    metadata = {"name": "tuned", "namespace": "team", "uid": "job-uid", "resourceVersion": "42", "generation": 2}
    return {"metadata": metadata, "status": status}


def test_every_wrong_setting_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("workers: 0\nresyncSeconds: soon\nstages: {train: {cpu: lots, memory: 1Gi}}\nunknown: 1\n")
    with pytest.raises(SystemExit) as exited:
        load_settings(file)
    assert exited.value.code == 64
    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith(f"error: {file}: ") for line in told)
    assert sorted(line.split(": ")[2] for line in told) == ["resyncSeconds", "stages.train.cpu", "unknown", "workers"]


@pytest.mark.parametrize("content", ["{", None])
def test_a_settings_file_that_cannot_be_read_is_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "settings.yaml"
    if content:
        file.write_text(content)
    with pytest.raises(SystemExit) as exited:
        load_settings(file)
    assert exited.value.code == 64


def test_without_a_settings_file_the_defaults_hold() -> None:
    assert load_settings(None).workers == 4


def send(api: ScriptedApi, verb: str = "GET") -> ApiError:
    async def run() -> ApiError:
        async with api.client() as client:
            with pytest.raises(ApiError) as caught:
                await (client.get("/api/v1/x") if verb == "GET" else client.create("/api/v1/x", {}))
            return caught.value

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "reason", "facts"),
    [
        (404, "NotFound", {"is_absent"}),
        (409, "AlreadyExists", {"is_taken", "is_conflict"}),
        (409, "Conflict", {"is_conflict"}),
        (403, "Forbidden", {"is_forbidden", "is_refused"}),
        (422, "Invalid", {"is_refused"}),
        (500, "InternalError", set()),
    ],
)
def test_what_a_refusal_means_is_read_from_its_code_and_reason(status: int, reason: str, facts: set[str]) -> None:
    error = send(ScriptedApi({("GET", "/api/v1/x"): (status, refusal(reason, "why"))}))
    known = ("is_absent", "is_taken", "is_conflict", "is_forbidden", "is_refused")
    assert {fact for fact in known if getattr(error, fact)} == facts
    assert str(error) == f"GET /api/v1/x: {status} {reason}: why"


def test_a_server_that_is_busy_says_when_to_come_back() -> None:
    api = ScriptedApi({("GET", "/api/v1/x"): (429, refusal("TooManyRequests", "busy"))}, headers={"Retry-After": "7"})
    assert send(api).retry_after == 7


def test_a_server_that_is_not_there_is_an_error_like_any_other() -> None:
    from kubernetes.aio.client import Configuration

    async def run() -> None:
        async with Api(Configuration(host="http://127.0.0.1:1")) as api:
            with pytest.raises(ApiError, match=r"GET /api/v1/x: no answer Client.*Error"):
                await api.get("/api/v1/x")

    asyncio.run(run())


def test_a_long_list_is_read_in_pages() -> None:
    async def run() -> list[Manifest]:
        async with api.client() as client:
            pages = client.pages("/api/v1/x")
            first = await anext(pages)
            api.answers["GET", "/api/v1/x"] = (200, {"items": [{"n": 2}], "metadata": {}})
            return [first, *[item async for item in pages]]

    api = ScriptedApi({("GET", "/api/v1/x"): (200, {"items": [{"n": 1}], "metadata": {"continue": "more"}})})
    assert asyncio.run(run()) == [{"n": 1}, {"n": 2}]
    assert [asked.query.get("continue") for asked in api.asked] == [None, "more"]


def test_a_refused_child_is_told_in_ready_and_in_a_warning() -> None:
    error = api_error(
        Request("POST", "/apis/batch/v1/namespaces/team/jobs"),
        403,
        b'{"reason": "Forbidden", "message": "exceeded quota: none"}',
        None,
    )
    planned = Plan(status=FineTuneJobStatus(conditions=[ready("Preparing", "all is well")]), requeue_after=5.0)
    told = refusals.explained(planned, error)
    (condition,) = told.status.conditions
    assert condition.reason == "Preparing"
    assert condition.message.startswith("The API server refused to create jobs: exceeded quota: none.")
    assert (told.events[-1].type, told.events[-1].reason) == ("Warning", "Forbidden")


def test_a_spec_that_cannot_be_read_fails_the_job_and_keeps_its_history() -> None:
    before = FineTuneJobStatus(
        attempt=2,
        conditions=[
            ready("Training"),
            Condition(type="Reconciling", status=ConditionStatus.TRUE, reason="Training", last_transition_time="x"),
            Condition(type="Prepared", status=ConditionStatus.TRUE, reason="Succeeded", last_transition_time="x"),
        ],
    )
    after = refusals.invalid_spec(before, 7, "spec.method: no", NOW)
    found = {entry.type: (entry.status.value, entry.reason) for entry in after.conditions}
    assert found == {
        "Ready": ("False", "InvalidSpec"),
        "Prepared": ("True", "Succeeded"),
        "Failed": ("True", "InvalidSpec"),
        "Stalled": ("True", "InvalidSpec"),
    }
    assert (after.observed_generation, after.attempt) == (7, 2)


def write(api: ScriptedApi, live: Manifest, wanted: FineTuneJobStatus) -> bool:
    async def run() -> bool:
        async with api.client() as client:
            return await write_status(client, fine_tune_job(live), wanted)

    return asyncio.run(run())


def test_a_status_that_stands_is_not_written() -> None:
    wanted = FineTuneJobStatus(conditions=[ready("Training")], attempt=1)
    api = ScriptedApi()
    assert not write(api, {**wanted.to_manifest(), "horizon": "of a newer operator"}, wanted)
    assert api.asked == []


def test_a_status_is_written_over_what_was_read_and_nothing_else() -> None:
    api = ScriptedApi({("PATCH", STATUS): (200, {})})
    before = FineTuneJobStatus(conditions=[ready("Training")], attempt=1, volume="v").to_manifest()
    assert write(api, {**before, "horizon": "far"}, FineTuneJobStatus(conditions=[ready("Merging")], attempt=1))
    (asked,) = api.asked
    conditions_written = [ready("Merging").to_manifest()]
    assert asked.body == {
        "metadata": {"resourceVersion": "42"},
        "status": {"conditions": conditions_written, "volume": None},
    }


def tell(api: ScriptedApi, *events: Event) -> None:
    async def run() -> None:
        async with api.client() as client:
            teller = Events(client, "operator-0")
            for event in events:
                await teller.tell(fine_tune_job({}), event, NOW)

    asyncio.run(run())


def test_the_same_event_has_the_same_name() -> None:
    api = ScriptedApi({("POST", EVENTS): (201, {})})
    once = Event(type="Normal", reason="Training", message="attempt 0")
    tell(api, once, once, Event(type="Normal", reason="Training", message="attempt 1"))
    first, second, third = (asked.body["metadata"]["name"] for asked in api.asked)
    assert first == second
    assert first != third
    assert first.startswith("tuned.")


def test_an_event_that_is_there_already_is_renewed() -> None:
    api = ScriptedApi({("POST", EVENTS): (409, refusal("AlreadyExists", "there"))})
    tell(api, Event(type="Normal", reason="Training", message="attempt 0"))
    assert [(asked.method, asked.body) for asked in api.asked][1:] == [
        ("PATCH", {"lastTimestamp": "2026-01-02T04:00:00Z"})
    ]


def test_an_event_that_is_refused_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    api = ScriptedApi({("POST", EVENTS): (403, refusal("Forbidden", "may not create events"))})
    tell(api, Event(type="Normal", reason="Training", message=""))
    assert "event Training of team/tuned not told" in caplog.text
