"""Uploading the merged model, against a hub's HTTP interface on loopback."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finetune_merger.push import check_target, push_model
from finetune_merger.stage import merge
from finetune_operator.api.delivery import Push
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from tiny_models import job

PUSH = {"target": "hf://team/tuned", "tokenSecret": {"name": "hub", "key": "token"}}


class HubServer(ThreadingHTTPServer):
    """The few calls of a hub that an upload of small files makes; ``refuses`` is the status it answers with instead."""

    refuses = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_POST(self) -> None:
        hub = self.server
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        hub.tokens.add(self.headers["Authorization"])
        if hub.refuses:
            self._answer(hub.refuses, {"error": "this token may not write here"})
        elif self.path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self._answer(200, {"url": f"{hub.address}/team/tuned"})
        elif self.path == "/api/models/team/tuned/preupload/main":
            files = json.loads(body)["files"]
            self._answer(200, {"files": [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in files]})
        elif self.path == "/api/models/team/tuned/commit/main":
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    hub.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._answer(
                200, {"success": True, "commitOid": "c0ffee", "commitUrl": f"{hub.address}/team/tuned/commit/c0ffee"}
            )
        else:
            self._answer(404, {"error": self.path})

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()


def run_of(root: Path, hub: HubServer, **push: Any) -> RunConfig:
    (root / "secrets/hub").mkdir(parents=True)
    (root / "secrets/hub/token").write_text("hf_secret\n")
    run = job(root, merge={"push": {**PUSH, **push}})
    return run.model_copy(update={"hub": run.hub.model_copy(update={"hugging_face_endpoint": hub.address})})


def model_folder(root: Path) -> Path:
    folder = root / "merged"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def push(run: RunConfig, folder: Path) -> str:
    assert run.spec.merge.push is not None
    return push_model(run, run.spec.merge.push, folder)


def test_every_file_is_uploaded_with_the_token_of_the_secret(tmp_path: Path, hub: HubServer) -> None:
    address = push(run_of(tmp_path, hub), model_folder(tmp_path))
    assert hub.files == {"config.json": b"{}", "model.safetensors": b"weights"}
    assert hub.tokens == {"Bearer hf_secret"}
    assert address.endswith("/commit/c0ffee")


def test_a_repository_that_is_made_is_private(tmp_path: Path, hub: HubServer) -> None:
    push(run_of(tmp_path, hub), model_folder(tmp_path))
    (created,) = hub.created
    assert created["name"] == "tuned"
    assert created["organization"] == "team"
    assert created.get("visibility", "private" if created.get("private") else "public") == "private"


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_may_not_write_is_the_users_to_mend(tmp_path: Path, hub: HubServer, status: int) -> None:
    hub.refuses = status
    with pytest.raises(StageFailure) as caught:
        push(run_of(tmp_path, hub), model_folder(tmp_path))
    assert caught.value.code is ExitCode.SOURCE_UNREACHABLE
    assert "merge.push.tokenSecret" in caught.value.message
    assert "hf_secret" not in caught.value.message


def test_a_secret_without_the_token_is_named(tmp_path: Path, hub: HubServer) -> None:
    with pytest.raises(StageFailure) as caught:
        push(run_of(tmp_path, hub, tokenSecret={"name": "hub", "key": "other"}), model_folder(tmp_path))
    assert caught.value.code is ExitCode.INVALID_SPEC
    assert "Secret hub has no key other" in caught.value.message
    assert not hub.created


@pytest.mark.parametrize("target", ["s3://bucket/models", "ms://team/tuned"])
def test_a_target_that_cannot_be_pushed_to_is_refused_before_the_merge(tmp_path: Path, target: str) -> None:
    with pytest.raises(StageFailure) as caught:
        merge(job(tmp_path, merge={"push": {"target": target}}))
    assert caught.value.code is ExitCode.INVALID_SPEC
    assert target in caught.value.message
    assert "hf://org/name" in caught.value.message


def test_a_supported_target_passes() -> None:
    check_target(Push(target="hf://team/tuned"))
