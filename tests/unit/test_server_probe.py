"""The probe against a real HTTP server on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.run import RunConfig
from finetune_server.activity import PROBE_HEADER
from finetune_server.key import read_api_key
from finetune_server.probe import probe

COMPLETION = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "H"}, "finish_reason": "length"}],
    "usage": {"completion_tokens": 1},
}
SPEC = {"model": {"source": "file:///m"}, "datasets": [{"source": "file:///d.jsonl"}], "method": "LoRA"}


class Server(ThreadingHTTPServer):
    """Answers every POST with ``status`` and ``answer`` and keeps what was asked."""

    status = 200
    answer: Any = COMPLETION
    hold: threading.Event | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, str], Any]] = []

    @property
    def port(self) -> int:
        return self.server_address[1]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, dict(self.headers), body))
        if self.server.hold is not None:
            self.server.hold.wait(30)
        answer = self.server.answer
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    return write_run(tmp_path)


def write_run(root: Path, **serving: Any) -> Path:
    run = RunConfig(
        name="tiny",
        uid="1",
        root=str(root),
        secrets=str(root / "secrets"),
        spec={**SPEC, "serving": {"gpus": 0, **serving}},
    )
    path = root / "run.json"
    path.write_text(run.dump())
    return path


def test_a_server_that_gives_one_token_is_ready(
    server: Server, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(run_file, 10, server.port) == 0
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny", 1, 0)
    assert "Authorization" not in headers
    assert capsys.readouterr() == ("", "")


def test_a_server_that_is_busy_answering_is_ready(server: Server, run_file: Path) -> None:
    server.answer = {"busy": True}
    assert probe(run_file, 10, server.port) == 0
    assert PROBE_HEADER in {name.lower() for name in server.requests[0][1]}


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (503, {"status": "loading"}, "answered 503"),
        (400, {"detail": "Server is pinned to 'other'"}, "pinned to 'other'"),
        (200, b"<html>", "not a chat completion"),
        (200, {"choices": []}, "not a chat completion"),
        (200, {"choices": [{"message": {}}], "usage": {"completion_tokens": 1}}, "empty"),
        (200, {**COMPLETION, "usage": {"completion_tokens": 0}}, "empty"),
        (200, [], "not a chat completion"),
    ],
)
def test_any_other_answer_is_not_ready_and_said_in_one_line(
    server: Server, run_file: Path, capsys: pytest.CaptureFixture[str], status: int, answer: Any, said: str
) -> None:
    server.status, server.answer = status, answer
    assert probe(run_file, 10, server.port) == 1
    error = capsys.readouterr().err
    assert error.startswith("not ready: ")
    assert said in error
    assert error.count("\n") == 1


def test_a_closed_port_is_not_ready(server: Server, run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.server_close()
    assert probe(run_file, 10, server.port) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_an_answer_that_does_not_come_in_time_is_not_ready(
    server: Server, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.hold = threading.Event()
    started = time.monotonic()
    assert probe(run_file, 0.2, server.port) == 1
    assert time.monotonic() - started < 5
    assert "did not answer within 0.2 s" in capsys.readouterr().err
    server.hold.set()


def test_the_probe_shows_the_key_of_the_secret(server: Server, tmp_path: Path) -> None:
    run_file = write_run(tmp_path, apiKeySecret={"name": "chat-key", "key": "api"})
    (tmp_path / "secrets/chat-key").mkdir(parents=True)
    (tmp_path / "secrets/chat-key/api").write_text("sesame\n")
    assert probe(run_file, 10, server.port) == 0
    assert server.requests[0][1]["Authorization"] == "Bearer sesame"


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_secret_without_a_key_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    run_file = write_run(tmp_path, apiKeySecret={"name": "chat-key", "key": "api"})
    if content is not None:
        (tmp_path / "secrets/chat-key").mkdir(parents=True)
        (tmp_path / "secrets/chat-key/api").write_text(content)
    assert probe(run_file, 10, 1) == 1
    assert "serving.apiKeySecret" in capsys.readouterr().err


def test_a_job_that_asks_for_no_key_has_none(run_file: Path) -> None:
    assert read_api_key(RunConfig.load(run_file)) is None


def test_a_proxy_in_the_environment_is_not_asked(
    server: Server, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert probe(run_file, 10, server.port) == 0


def test_the_probe_imports_nothing_heavy() -> None:
    code = "import sys, finetune_server.main; print([name for name in ('torch', 'transformers', 'fastapi') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
