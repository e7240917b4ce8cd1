"""What the guard lets through to the engine, and what it answers itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from finetune_server import activity, guard
from finetune_server.guard import Guard

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}


def engine() -> FastAPI:
    """An application with the routes of `transformers serve`, each answering with what reached it."""
    app = FastAPI()

    async def echo(request: Request) -> dict[str, Any]:
        return {"reached": request.url.path, "bytes": len(await request.body())}

    async def stream() -> StreamingResponse:
        return StreamingResponse(iter(["data: one\n\n", "data: two\n\n"]), media_type="text/event-stream")

    async def talk(socket: WebSocket) -> None:
        await socket.accept()

    for path in ("/v1/chat/completions", "/v1/responses", "/load_model", "/reset", "/v1/audio/transcriptions"):
        app.post(path)(echo)
    app.post("/v1/completions")(stream)
    app.get("/health")(echo)
    app.get("/v1/models")(echo)
    app.websocket("/v1/chat/completions")(talk)
    return app


@pytest.fixture
def keys() -> list[str | None]:
    """The key that is asked for, in a list so that a test can change it under way."""
    return [None]


@pytest.fixture
def client(keys: list[str | None]) -> Iterator[TestClient]:
    with TestClient(Guard(engine(), "tiny", lambda: keys[0])) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/load_model"),
        ("POST", "/reset"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/audio/transcriptions"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/v1/chat/completions"),
        ("DELETE", "/v1/models"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "//load_model"),
        ("POST", "/v1/../load_model"),
    ],
)
def test_everything_but_the_open_ai_api_is_not_found(client: TestClient, method: str, path: str) -> None:
    response = client.request(method, path, json=CHAT)
    assert response.status_code == 404
    assert "is not served" in response.json()["error"]["message"]


def test_a_chat_reaches_the_engine_whole(client: TestClient) -> None:
    sent = json.dumps(CHAT).encode()
    response = client.post("/v1/chat/completions", content=sent, headers={"content-type": "application/json"})
    assert response.json() == {"reached": "/v1/chat/completions", "bytes": len(sent)}


def test_a_streamed_answer_comes_through(client: TestClient) -> None:
    assert client.post("/v1/completions", json={"prompt": "Hi"}).text == "data: one\n\ndata: two\n\n"


def test_the_list_of_models_is_the_one_that_is_served(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("tiny", "model")


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "sesame", "Basic sesame", "Bearer sesame2"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("GET", "/v1/models")]
)
def test_without_the_key_nothing_is_answered(
    client: TestClient, keys: list[str | None], method: str, path: str, header: str | None
) -> None:
    keys[0] = "sesame"
    response = client.request(method, path, json=CHAT, headers={} if header is None else {"Authorization": header})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("header", "value"),
    [("Authorization", "Bearer sesame"), ("Authorization", "bearer sesame"), ("X-Api-Key", "sesame")],
)
def test_with_the_key_the_engine_answers(client: TestClient, keys: list[str | None], header: str, value: str) -> None:
    keys[0] = "sesame"
    assert client.post("/v1/chat/completions", json=CHAT, headers={header: value}).status_code == 200


def test_a_key_that_changed_counts_at_once(client: TestClient, keys: list[str | None]) -> None:
    keys[0] = "old"
    headers = {"Authorization": "Bearer new"}
    assert client.get("/v1/models", headers=headers).status_code == 401
    keys[0] = "new"
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_the_kubelet_needs_no_key_for_the_health_of_the_process(client: TestClient, keys: list[str | None]) -> None:
    keys[0] = "sesame"
    assert client.get("/health").status_code == 200


def test_a_request_over_the_limit_is_refused(client: TestClient) -> None:
    large = {**CHAT, "user": "x" * guard.BODY_LIMIT}
    assert client.post("/v1/chat/completions", json=large).status_code == 413


def test_a_request_that_does_not_say_its_length_is_cut_off_at_the_limit(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODY_LIMIT", 1000)
    chunks = (b"x" * 100 for _ in range(11))
    assert client.post("/v1/completions", content=chunks).status_code == 413


@pytest.mark.parametrize(
    "body", [b"", b"no json", b"[]", b"{}", b'{"messages": []}', b'{"messages": [1]}', b'{"messages": 3}']
)
def test_a_chat_without_messages_is_the_clients_error(client: TestClient, body: bytes) -> None:
    response = client.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert '"messages"' in response.json()["error"]["message"]


class HeldEngine:
    """An engine that answers once it is let go."""

    def __init__(self) -> None:
        self.reached, self.free = asyncio.Event(), asyncio.Event()
        self.free.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.set()
        await self.free.wait()
        await JSONResponse({"answer": 1})(scope, receive, send)


async def chat(app: Guard, headers: list[tuple[bytes, bytes]]) -> Any:
    sent: list[Any] = []
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps(CHAT).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return json.loads(sent[1]["body"])


async def probe_during_a_long_answer(answered_before: bool) -> Any:
    """The probe's answer while the engine works for somebody else; None where the probe waits in line for the engine."""
    probe = [(activity.PROBE_HEADER.encode(), b"1")]
    engine = HeldEngine()
    app = Guard(engine, "tiny", lambda: None)
    if answered_before:
        assert await chat(app, probe) == {"answer": 1}
    engine.free.clear()
    engine.reached.clear()
    long = asyncio.create_task(chat(app, []))
    await engine.reached.wait()
    engine.reached.clear()
    probing, waiting = asyncio.create_task(chat(app, probe)), asyncio.create_task(engine.reached.wait())
    await asyncio.wait({probing, waiting}, return_when=asyncio.FIRST_COMPLETED)
    answer = probing.result() if probing.done() else None
    engine.free.set()
    await asyncio.gather(long, probing)
    waiting.cancel()
    return answer


def test_a_server_that_answers_somebody_else_is_ready_without_waiting_in_line() -> None:
    assert asyncio.run(probe_during_a_long_answer(answered_before=True)) == {"busy": True}


def test_a_server_that_never_answered_the_probe_is_not_taken_for_busy() -> None:
    assert asyncio.run(probe_during_a_long_answer(answered_before=False)) is None


def test_a_server_that_is_stuck_in_a_request_is_not_taken_for_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "STUCK_SECONDS", 0)
    assert asyncio.run(probe_during_a_long_answer(answered_before=True)) is None


def test_a_web_socket_is_closed(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/chat/completions"):
        pass
