"""T9 and T11: hubs and stores that lead to other addresses, hand tokens on, or say what they were sent.

Every job runs the real prepare stage in the wrapper that the image's main runs in; the canary must be in nothing that it
leaves or says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.outcome import (
    TERMINATION_LOG_VARIABLE,
    ExitCode,
    StageFailure,
    TerminationMessage,
    run_stage,
)
from finetune_operator.api.redact import REDACTED
from finetune_operator.api.run import Hub, RunConfig
from finetune_trainer.prepare.remote.inner_addresses import InnerAddress, refuse_inner
from finetune_trainer.prepare.stage import prepare
from job_cases import GOOD
from loopback_hub import LoopbackHub, serving
from support_server import running
from tiny_models import save_base
from trainer_runs import make_run, write_lines

TOKEN = "hf_canaryCANARYcanaryCANARY0123456"
BARE_TOKEN = "canary/without+any=known.form"
METADATA = "http://169.254.169.254/latest/meta-data/iam/security-credentials/node"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    for owner in ("org", "private", "broken", "gated"):
        save_base(tmp_path / "hub" / "models" / owner / "tiny")
    with serving(tmp_path / "hub") as server:
        server.token = TOKEN
        yield server


@dataclass
class Said:
    """How the stage ended, and all that it said and left."""

    code: int
    message: str
    everything: str


class Stage:
    """Runs prepare for a model of the hub with a token from a Secret."""

    def __init__(self, folder: Path, log: Path, output: pytest.CaptureFixture[str]) -> None:
        self._folder, self._log, self._output = folder, log, output

    def run(self, url: str, owner: str = "private", token: str = TOKEN, **fields: Any) -> Said:
        secret = self._folder / "secrets" / "hub" / "token"
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text(f"{token}\n")
        model = {"source": f"hf://{owner}/tiny", "tokenSecret": {"name": "hub", "key": "token"}}
        rows = write_lines(self._folder / "rows.jsonl", GOOD)
        run = make_run(self._folder / "job", self._folder, rows, **{"model": model, **fields})
        return self.end(
            run.model_copy(update={"hub": Hub(hugging_face_endpoint=url), "secrets": str(self._folder / "secrets")})
        )

    def end(self, run: RunConfig) -> Said:
        code = run_stage(lambda: prepare(run))
        words = TerminationMessage.decode(self._log.read_text())
        left = (path.read_bytes().decode(errors="replace") for path in Path(run.root).rglob("*") if path.is_file())
        heard = self._output.readouterr()
        everything = "\n".join([heard.out, heard.err, self._log.read_text(), run.dump(), *left])
        return Said(code, words.message if words else "", everything)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Stage:
    monkeypatch.setenv(TERMINATION_LOG_VARIABLE, str(tmp_path / "words"))
    return Stage(tmp_path, tmp_path / "words", capfd)


@pytest.mark.threat("T11")
def test_a_token_that_opens_a_model_is_in_nothing_that_prepare_says_or_leaves(stage: Stage, hub: LoopbackHub) -> None:
    said = stage.run(hub.url)
    assert said.code == ExitCode.DONE
    assert f"Bearer {TOKEN}" in {shown for _, shown in hub.shown}
    assert TOKEN not in said.everything


@pytest.mark.threat("T11")
@pytest.mark.parametrize("owner", ["private", "gated", "broken", "nobody"])
@pytest.mark.parametrize("token", [TOKEN, BARE_TOKEN])
def test_a_token_that_a_hub_refuses_and_repeats_is_not_repeated(
    stage: Stage, hub: LoopbackHub, owner: str, token: str
) -> None:
    hub.echoes, hub.token = True, "another"
    said = stage.run(hub.url, owner, token)
    assert said.code == ExitCode.SOURCE_UNREACHABLE
    assert said.message.startswith(f"spec.model.source: hf://{owner}/tiny: ")
    assert token not in said.everything


@pytest.mark.threat("T11")
def test_a_password_in_the_address_of_a_hub_is_not_told(stage: Stage, hub: LoopbackHub) -> None:
    said = stage.run(hub.url.replace("://", "://robot:canary-password@"), "nobody")
    assert said.code == ExitCode.SOURCE_UNREACHABLE
    assert f"{REDACTED}@127.0.0.1" in said.message
    assert "canary-password" not in said.message


@pytest.mark.threat("T11")
@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        "AKIAIOSFODNN7EXAMPLE",
        "Bearer abcdefgh.ijklmnop",
        "sk-abcdefgh01234567",
        "ghp_abcdefghijklmnopqrst0123",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc",
        "https://robot:hunter2hunter2@hub.example/x",
    ],
)
def test_a_secret_in_an_error_that_nobody_expected_is_cut_out_of_message_and_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], secret: str
) -> None:
    monkeypatch.setenv(TERMINATION_LOG_VARIABLE, str(tmp_path / "words"))
    kept = secret.partition("://")[2].partition("@")[0] or secret

    def fail(error: Exception) -> Any:
        raise error

    assert run_stage(lambda: fail(RuntimeError(f"request failed with {secret}"))) == ExitCode.INTERNAL
    assert run_stage(lambda: fail(StageFailure(ExitCode.INVALID_DATA, f"row 1: {secret}"))) == ExitCode.INVALID_DATA
    heard = capfd.readouterr()
    assert heard.err.count(REDACTED) >= 3
    assert kept not in heard.out + heard.err + (tmp_path / "words").read_text()


@pytest.mark.threat("T9")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "api/models/private/tiny"])
@pytest.mark.parametrize("to", [METADATA, "http://[fe80::1]/x", "http://100.100.100.200/latest"])
def test_a_hub_that_leads_to_the_nodes_metadata_is_not_followed(
    stage: Stage, hub: LoopbackHub, name: str, to: str
) -> None:
    hub.detours[name] = to
    said = stage.run(hub.url)
    assert said.code == ExitCode.SOURCE_UNREACHABLE
    assert "an address of the node's own, which is never asked" in said.message
    assert not (stage._folder / "job" / "base").exists()


@pytest.mark.threat("T9")
@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "2852039166",
        "0xA9FEA9FE",
        "169.254.43518",
    ],
)
def test_every_spelling_of_an_inner_address_is_known(address: str) -> None:
    class Request:
        class url:
            host = address.strip("[]")

    with pytest.raises(InnerAddress):
        refuse_inner(Request())


@pytest.mark.threat("T9")
@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1:70/x", "/etc/passwd"])
def test_a_hub_that_leads_to_another_scheme_or_a_local_file_is_not_followed(
    stage: Stage, hub: LoopbackHub, to: str
) -> None:
    hub.detours["config.json"] = to
    said = stage.run(hub.url)
    assert said.code in (ExitCode.SOURCE_UNREACHABLE, ExitCode.MODEL_UNUSABLE)
    assert "root:" not in said.everything
    assert not (stage._folder / "job" / "base").exists()


class _Elsewhere(BaseHTTPRequestHandler):
    """Another host, which notes what it is shown."""

    shown: list[str]

    def do_GET(self) -> None:
        self.shown.append(self.headers.get("Authorization", ""))
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.mark.threat("T9")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "api/models/private/tiny"])
def test_the_token_does_not_go_along_to_another_host(stage: Stage, hub: LoopbackHub, name: str) -> None:
    _Elsewhere.shown = []
    with running(ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere)) as other:
        hub.detours[name] = f"http://127.0.0.1:{other.server_address[1]}/x"
        said = stage.run(hub.url)
    assert said.code == ExitCode.SOURCE_UNREACHABLE
    assert _Elsewhere.shown, "the redirect was followed"
    assert set(_Elsewhere.shown) == {""}
