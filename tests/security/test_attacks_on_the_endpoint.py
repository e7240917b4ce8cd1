"""T14: requests to a served model that are no chats: other paths, smuggled ones, other people's templates, and work for hours.

The guard stands in a real uvicorn before an application with the routes that `transformers serve` and vLLM have.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, HTTPException, Request

from finetune_operator.api.delivery import Serving
from finetune_server import guard, key
from finetune_server.guard import Guard
from finetune_server.vllm_engine import vllm_command
from finetune_server.vllm_guard import RUN_VARIABLE
from support_wait import eventually
from tiny_models import job

pytestmark = pytest.mark.threat("T14")
KEY = "sesame-open-0123456789"
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
CHAT_PATH = "/v1/chat/completions"
HIDDEN = [
    "/invocations", "/tokenize", "/detokenize", "/pause", "/resume", "/update_weights", "/collective_rpc", "/reset_prefix_cache",
    "/sleep", "/wake_up", "/is_sleeping", "/server_info", "/metrics", "/load", "/ping", "/version", "/pooling", "/classify",
    "/score", "/rerank", "/v1/embeddings", "/v1/responses", "/v1/audio/transcriptions", "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter", "/load_model", "/reset", "/start_profile", "/scale_elastic_ep", "/docs", "/openapi.json",
]  # fmt: skip
"""Of vLLM, `transformers serve` and FastAPI."""


@dataclass
class Served:
    """An endpoint, and what has come as far as its engine."""

    port: int = 0
    reached: list[str] = field(default_factory=list)

    def raw(self, request: bytes, seconds: float = 60) -> bytes:
        """What comes back for the bytes as they are."""
        with socket.create_connection(("127.0.0.1", self.port), seconds) as connection:
            connection.sendall(request)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
            return answer

    def ask(self, method: str, target: str, body: Any = None, headers: str = f"Authorization: Bearer {KEY}\r\n") -> int:
        """The status that a request is answered with."""
        content = body if isinstance(body, bytes) else json.dumps(CHAT if body is None else body).encode()
        head = f"{method} {target} HTTP/1.1\r\nHost: tiny\r\nConnection: close\r\n{headers}"
        request = f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
        return status(self.raw(request))


def status(answer: bytes) -> int:
    return int(answer.split()[1]) if answer else 0


def engine(served: Served) -> FastAPI:
    app = FastAPI()

    async def answer(request: Request) -> dict[str, Any]:
        served.reached.append(request.url.path)
        return {"bytes": len(await request.body())}

    for path in (CHAT_PATH, "/v1/completions", "/v1/models", "/health", *HIDDEN):
        app.add_api_route(path, answer, methods=["GET", "POST"], include_in_schema=False)
    return app


@contextmanager
def serving(app: Any, served: Served) -> Iterator[Served]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    served.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Served]:
    served = Served()
    with serving(Guard(engine(served), "tiny", lambda: KEY), served):
        yield served


@pytest.fixture
def served(endpoint: Served) -> Served:
    endpoint.reached.clear()
    return endpoint


def test_a_chat_with_the_key_reaches_the_engine(served: Served) -> None:
    assert served.ask("POST", CHAT_PATH) == 200
    assert served.reached == [CHAT_PATH]


@pytest.mark.parametrize("path", HIDDEN)
def test_every_other_route_of_an_engine_is_not_found_by_the_guard(served: Served, path: str) -> None:
    assert [served.ask(method, path) for method in ("GET", "POST")] == [404, 404]
    assert served.reached == []


@pytest.mark.parametrize(
    "target",
    [
        "/v1/../tokenize", "/v1/%2e%2e/tokenize", "/v1/chat/completions/../../../load_model", "//load_model", "/%2Fload_model",
        "/load_model/", "/load_model?x=/v1/models", "/load_model#/v1/models", "/load_model;/v1/models", "/LOAD_MODEL", "/load_model%00",
        "/v1/chat/completions%2F..%2F..%2Fload_model", "http://tiny/load_model", "http://tiny@/v1/models/load_model", "/./load_model",
        "/v1%2Fchat%2Fcompletions/..%2fload_model", "/\\load_model", "/load_model%20", "*", "http://evil/invocations", "/health/../pause",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_leads_past_the_guard(served: Served, target: str) -> None:
    assert served.ask("POST", target) in (400, 404, 405)
    assert served.reached == []


@pytest.mark.parametrize(
    "headers",
    [
        "Host: tiny/v1/models\r\n", "X-Original-URL: /load_model\r\n", "X-Rewrite-URL: /load_model\r\n",
        "X-Forwarded-Prefix: /load_model\r\n",
        "X-HTTP-Method-Override: GET\r\n", "X-Forwarded-For: 127.0.0.1\r\n", "X-Finetune-Probe: 1\r\n",
    ],
)  # fmt: skip
def test_no_header_stands_for_the_key_or_for_another_path(served: Served, headers: str) -> None:
    assert served.ask("POST", CHAT_PATH, headers=headers) in (400, 401)
    assert served.reached == []


def test_a_host_that_holds_a_path_does_not_change_the_path_that_is_looked_at(served: Served) -> None:
    request = b"POST /load_model HTTP/1.1\r\nHost: tiny/v1/models?\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    assert status(served.raw(request)) in (400, 404)
    assert served.reached == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "CONNECT", "PROPFIND"])
def test_no_other_method_is_served(served: Served, method: str) -> None:
    assert served.ask(method, CHAT_PATH) in (400, 404, 405)
    assert served.reached == []


INNER = b"POST /load_model HTTP/1.1\r\nHost: tiny\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + INNER,
        b"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n" + INNER,
        b"Content-Length: 0\r\nContent-Length: 70\r\n\r\n" + INNER,
        b"Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n" + INNER,
        b"Content-Length: +0\r\n\r\n" + INNER,
        b"Content-Length: 0\r\nX: y\nPOST: /load_model\r\n\r\n" + INNER,
    ],
    ids=[
        "CL and TE",
        "TE and CL",
        "an unknown TE",
        "two lengths",
        "a space before the colon",
        "a signed length",
        "a bare LF",
    ],
)
def test_a_request_within_a_request_is_seen_by_the_guard_or_not_read_at_all(served: Served, headers: bytes) -> None:
    request = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: tiny\r\nAuthorization: Bearer {KEY}\r\n".encode() + headers
    answer = served.raw(request + b"GET /v1/models HTTP/1.1\r\nHost: tiny\r\nConnection: close\r\n\r\n")
    assert "/load_model" not in served.reached
    assert b'"bytes"' not in answer


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {KEY}",
        KEY[:-1],
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY}x",
        f"Bearer {KEY.upper()}",
        "Bearer \u00e9",
    ],
)
def test_what_is_nearly_the_key_is_not_the_key(served: Served, shown: str) -> None:
    headers = f"Authorization: {shown}\r\n"
    assert served.ask("POST", CHAT_PATH, headers=headers) == 401
    assert served.reached == []


def test_the_key_is_compared_in_constant_time_and_never_logged(
    capfd: pytest.CaptureFixture[str], served: Served
) -> None:
    source = inspect.getsource(guard.Guard._authorised)
    assert "hmac.compare_digest" in source
    assert "==" not in source
    served.ask("POST", CHAT_PATH, headers="Authorization: Bearer wrong-canary-77\r\n")
    assert "wrong-canary-77" not in "".join(capfd.readouterr())


def test_no_answer_invites_pages_of_other_origins(served: Served) -> None:
    origin = f"Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\nAuthorization: Bearer {KEY}\r\n"
    head = f"HTTP/1.1\r\nHost: tiny\r\nConnection: close\r\n{origin}"
    preflight = served.raw(f"OPTIONS {CHAT_PATH} {head}\r\n".encode())
    models = served.raw(f"GET /v1/models {head}\r\n".encode())
    assert (status(preflight), status(models)) == (404, 200)
    assert b"access-control" not in (preflight + models).lower()


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"chat_template": "{{ 7 }}"}, "chat_template is not taken from a request; the model's own is used"),
        ({"chat_template_kwargs": {"chat_template": "{% for %}"}}, "chat_template_kwargs has chat_template, expected settings"),
        ({"chat_template_kwargs": {"tokenize": False}}, "chat_template_kwargs has tokenize"),
        ({"chat_template_kwargs": {"documents": [{"a": 1}]}}, "chat_template_kwargs has documents"),
        ({"chat_template_kwargs": {"x": ["y"]}}, "chat_template_kwargs has x"),
        ({"chat_template_kwargs": "evil"}, "chat_template_kwargs is no JSON object"),
        ({"generation_config": '{"max_new_tokens": 1000000000}'}, "generation_config is not taken from a request"),
        ({"prompt_embeds": "gAQ="}, "prompt_embeds is not taken from a request; send text"),
        ({"mm_processor_kwargs": {"x": 1}}, "mm_processor_kwargs is not taken from a request; send text"),
        ({"max_tokens": 10**9}, "max_tokens is 1000000000, expected a whole number up to 32768"),
        ({"max_completion_tokens": 10**9}, "max_completion_tokens is 1000000000"),
        ({"max_tokens": -1}, "max_tokens is -1"),
        ({"max_tokens": 1e400}, "max_tokens is Infinity"),
        ({"max_tokens": "9" * 5000}, 'max_tokens is "999'),
        ({"n": 10**6}, "n is 1000000, expected a whole number up to 8"),
        ({"best_of": 10**6}, "best_of is 1000000"),
        ({"top_logprobs": 10**6}, "top_logprobs is 1000000"),
        ({"stop": ["x"] * 10**4}, "stop is not a list of up to 16 texts"),
        ({"stop": "x" * 10**6}, "stop is not a list of up to 16 texts of up to 1000 characters"),
        ({"stop": [{"x": 1}]}, "stop is not a list"),
        ({"logit_bias": {str(token): 1 for token in range(5000)}}, "logit_bias has 5000 tokens"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]}]},
            'a message has a part of type "image_url", expected text',
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "file:///etc/passwd"}}]}]},
            'a message has a part of type "video_url", expected text',
        ),
        ({"messages": [{"role": "user", "content": [7]}]}, "a message has a part of type 7"),
    ],
)  # fmt: skip
def test_what_a_request_may_not_ask_is_answered_by_the_guard(
    served: Served, fields: dict[str, Any], found: str
) -> None:
    content = json.dumps({**CHAT, **fields}).encode()
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: tiny\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n"
    answer = served.raw(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    assert status(answer) == 400
    assert found in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert served.reached == []


def test_settings_of_the_models_own_template_are_let_through(served: Served) -> None:
    fine = {
        "chat_template_kwargs": {"enable_thinking": False},
        "stop": ["\n"],
        "max_tokens": 64,
        "n": 1,
        "logprobs": True,
    }
    assert served.ask("POST", CHAT_PATH, {**CHAT, **fine}) == 200


@pytest.mark.parametrize(
    "body", [b"[" * 10**6, b'{"a":' * 10**5, b"\xff\xfe", b"null", b"3", b'{"messages": {"role": 1}}', b"9" * 5000]
)
def test_a_body_that_breaks_readers_is_the_clients_error(served: Served, body: bytes) -> None:
    assert served.ask("POST", CHAT_PATH, body) == 400
    assert served.ask("POST", "/v1/completions", body) in (400, 200)
    assert CHAT_PATH not in served.reached


@pytest.mark.parametrize("length", [str(guard.BODY_LIMIT + 1), "9" * 30, "-1", "0x10", "1e9", ""])
def test_a_length_that_is_too_large_or_none_is_refused_before_the_body_is_read(served: Served, length: str) -> None:
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: tiny\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n"
    answer = served.raw(f"{head}Content-Length: {length}\r\n\r\n".encode())
    assert status(answer) in (400, 413)
    assert served.reached == []


def test_chunks_without_end_are_cut_off_at_the_limit(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_LIMIT", 10_000)
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: tiny\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    answer = served.raw(head.encode() + (b"3e8\r\n" + b"x" * 1000 + b"\r\n") * 20 + b"0\r\n\r\n")
    assert status(answer) == 413
    assert served.reached == []


def test_headers_without_end_are_refused(served: Served) -> None:
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: tiny\r\n" + "".join(f"X-{n}: {'x' * 1000}\r\n" for n in range(200))
    try:
        answer = served.raw(f"{head}Connection: close\r\n\r\n".encode())
    except ConnectionError:  # it hung up in the middle
        answer = b""
    assert status(answer) in (0, 400, 401, 431)
    assert served.reached == []


def test_a_body_that_trickles_in_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: tiny\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\nContent-Length: 100\r\n\r\n"
    assert status(served.raw(head.encode() + b"{")) == 408
    assert served.reached == []


def test_connections_that_say_nothing_keep_nobody_from_being_answered(served: Served) -> None:
    with ExitStack() as held:
        for number in range(200):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", served.port), 10))
            connection.sendall(f"POST {CHAT_PATH} HTTP/1.1\r\nHost: tiny\r\nX-{number}:".encode())
        assert served.ask("POST", CHAT_PATH) == 200
    assert served.reached == [CHAT_PATH]


def test_a_client_that_goes_away_in_the_middle_of_its_body_reaches_no_engine(served: Served) -> None:
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: tiny\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), 10) as connection:
        connection.sendall(head.encode() + b"{")
    assert served.ask("POST", CHAT_PATH) == 200
    assert served.reached == [CHAT_PATH]


@pytest.mark.parametrize("kind", ["websocket", "http3", "unknown"])
def test_what_is_no_http_request_is_closed(kind: str) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": f"{kind}.connect"}

    app = Guard(engine(Served()), "tiny", lambda: None)
    asyncio.run(app({"type": kind, "path": CHAT_PATH, "headers": []}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The engine's application with the guard added the way that vLLM's --middleware adds it."""
    run = job(tmp_path, serving={"apiKeySecret": {"name": "key", "key": "key"}})
    (tmp_path / "secrets" / "key").mkdir(parents=True)
    (tmp_path / "secrets" / "key" / "key").write_text(KEY)
    command = vllm_command(run, run.spec.serving or Serving(), "127.0.0.1", 8000)
    module, _, name = command[command.index("--middleware") + 1].rpartition(".")
    monkeypatch.setenv(RUN_VARIABLE, run.dump())
    served = Served()
    app = engine(served)
    app.add_middleware(getattr(importlib.import_module(module), name))
    with serving(app, served):
        yield served


def test_the_guard_stands_in_vllm_too(vllm: Served) -> None:
    asked = [(method, path) for path in HIDDEN for method in ("GET", "POST") if (method, path) != ("GET", "/metrics")]
    assert {vllm.ask(*route) for route in asked} == {404}
    assert vllm.ask("POST", CHAT_PATH, headers="") == 401
    assert vllm.ask("POST", CHAT_PATH, {**CHAT, "chat_template": "x"}) == 400
    assert vllm.reached == []
    assert vllm.ask("POST", CHAT_PATH) == 200
    assert vllm.reached == [CHAT_PATH]


def test_vllm_is_told_to_trust_nothing(tmp_path: Path) -> None:
    command = vllm_command(job(tmp_path), Serving(), "0.0.0.0", 8000)
    risky = (
        "trust",
        "prompt-embeds",
        "allowed-local-media",
        "allowed-origins",
        "enable-sleep",
        "tokenizer-mode",
        "load-format",
    )
    assert not [word for word in command if word.startswith("--") and any(part in word for part in risky)]
    assert key.read_api_key(job(tmp_path)) is None


@pytest.mark.threat("T10")
def test_a_template_that_loops_at_one_clients_message_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune_server import transformers_engine

    def render(messages: list[str]) -> str:
        while "now" in messages:
            pass
        return "text"

    monkeypatch.setattr(transformers_engine, "RENDER_SECONDS", 0.2)
    limited = transformers_engine._within_limits(render)
    with pytest.raises(
        HTTPException, match=r"the model's chat template does not come to an end: it took more than 0.2 s"
    ) as caught:
        limited(["now"])
    assert caught.value.status_code == 400
    assert limited(["later"]) == "text"
