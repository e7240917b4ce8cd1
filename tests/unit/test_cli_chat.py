"""`finetune chat` with an endpoint on this machine and with the folder of a local run."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from fake_stages import install_fakes
from finetune_devcluster.node.processes import start_time
from finetune_operator.api.delivery import ServingMode
from finetune_operator.api.run import RunConfig
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.local.folder import load_config, local_part
from finetune_operator.cli.local.server import serve_command, serving_config
from finetune_operator.cli.main import main
from support_wait import eventually
from tiny_endpoint import Handler
from wrong_manifests import changed, valid_manifest


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Base URL of an endpoint that wants the key `sesame`."""
    monkeypatch.setattr(Handler, "key", "sesame")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_text("sesame\n")
    return str(tmp_path / "key")


def finished_run(folder: Path, **spec: object) -> Path:
    """The folder of a run that has finished all its stages."""
    manifest = valid_manifest("tuned", "Full")
    parsed = FineTuneJobSpec.model_validate({**manifest["spec"], **spec})
    folder.mkdir()
    (folder / "run.json").write_text(RunConfig(name="tuned", uid="1", spec=parsed, root=str(folder)).dump())
    (folder / "result.json").write_text('{"prepare": {}, "train": {}, "merge": {}}')
    return folder


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_each_message_gets_its_answer_in_one_conversation(
    endpoint: str, key: str, capfd: pytest.CaptureFixture[str], suffix: str
) -> None:
    words = ["--message", "Who are you?", "--message", "And then?", "--system", "Be brief."]
    assert main(["chat", "tuned", "--url", endpoint + suffix, "--api-key-file", key, *words]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "tuned heard 'Who are you?' after 1 Be brief.",
        "tuned heard 'And then?' after 3 Be brief.",
    ]


def test_a_missing_key_is_told_with_the_flag_that_gives_it(endpoint: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "tuned", "--url", endpoint, "--message", "hi"]) == 1
    said = "error: the endpoint answered 401: a valid key is needed; give the key with --api-key-file\n"
    assert capfd.readouterr().err == said


@pytest.mark.parametrize("content", ["", "two\nlines", "schlüssel"])
def test_a_key_file_that_holds_no_key_is_refused(
    endpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "key").write_text(content)
    assert main(["chat", "tuned", "--url", endpoint, "--api-key-file", str(tmp_path / "key"), "--message", "hi"]) == 1
    assert "found no key, expected one line of printable ASCII" in capfd.readouterr().err


def test_an_endpoint_that_is_not_there_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "tuned", "--url", "http://127.0.0.1:1", "--message", "hi"]) == 1
    said = "error: cannot reach 127.0.0.1:1: Failed to establish a new connection: [Errno 111] Connection refused\n"
    assert capfd.readouterr().err == said


@pytest.mark.parametrize("url", ["host:8000", "/v1", "ftp://host", "http://", ""])
def test_a_url_without_scheme_and_host_is_refused(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["chat", "tuned", "--url", url, "--message", "hi"])
    assert f"found {url!r}, expected a URL such as http://host:8000" in capfd.readouterr().err


def test_at_a_terminal_answers_come_in_parts_and_the_conversation_goes_on(endpoint: str, key: str) -> None:
    ours, theirs = pty.openpty()
    command = [f"{sys.prefix}/bin/finetune", "chat", "tuned", "--url", endpoint, "--api-key-file", key]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    os.write(ours, b"Who are you?\nAnd then?\n\x04")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "tuned heard 'Who are you?' after 0" in out
    assert "tuned heard 'And then?' after 2" in out


def test_the_folder_of_a_run_is_served_for_as_long_as_the_chat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(install_fakes(tmp_path / "bin")))
    folder = finished_run(tmp_path / "run")
    assert main(["chat", str(folder), "--message", "Who are you?"]) == 0
    assert capfd.readouterr().out == "tuned heard 'Who are you?' after 0\n"
    assert not Path(f"/proc/{(folder / 'server.pid').read_text()}").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_chat_that_is_ended_takes_its_server_along(tmp_path: Path, number: signal.Signals) -> None:
    fakes = install_fakes(tmp_path / "bin")
    folder = finished_run(tmp_path / "run")
    program = (
        f"import sys; sys.executable = {str(fakes)!r}; from finetune_operator.cli.main import main; sys.exit(main())"
    )
    ours, theirs = pty.openpty()
    command = [f"{sys.prefix}/bin/python", "-c", program, "chat", str(folder)]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, text=True, start_new_session=True)
    os.write(ours, b"hello\n")
    assert process.stdout is not None
    assert "tuned heard 'hello'" in process.stdout.readline()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    pid = int((folder / "server.pid").read_text())
    eventually(lambda: start_time(pid) is None)


def test_a_server_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(install_fakes(tmp_path / "bin")))
    folder = finished_run(tmp_path / "run")
    (folder / "broken").touch()
    assert main(["chat", str(folder), "--message", "hi"]) == 1
    assert (
        "error: the server ended with exit code 66: ModelUnusable: config.json is missing\n" in capfd.readouterr().err
    )


def test_a_run_that_is_not_finished_cannot_be_talked_to(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = finished_run(tmp_path / "run")
    (folder / "result.json").write_text('{"prepare": {}}')
    assert main(["chat", str(folder), "--message", "hi"]) == 1
    assert f"error: {folder}: stage train is not done yet" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("method", "merge", "mode"), [("Full", True, "Merged"), ("LoRA", True, "Merged"), ("LoRA", False, "Adapter")]
)
def test_what_is_served_here_needs_no_gpu_no_key_and_what_the_run_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, merge: bool, mode: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("finetune_operator.cli.local.inputs.GPU_DEVICES", [tmp_path / "nvidiactl"])
    serving = {"apiKeySecret": {"name": "keys"}, "mode": mode}
    folder = finished_run(tmp_path / "run", method=method, merge={"enabled": merge}, serving=serving)
    config = serving_config(load_config(folder))
    again = RunConfig.model_validate_json(config.dump())
    assert again.spec.serving is not None
    assert (again.spec.serving.engine.value, again.spec.serving.gpus) == ("Transformers", 0)
    assert again.spec.serving.api_key_secret is None
    assert again.spec.serving.mode.value == mode


def test_an_adapter_alone_is_served_without_a_serving_block(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", method="LoRA", merge={"enabled": False})
    again = RunConfig.model_validate_json(serving_config(load_config(folder)).dump())
    assert again.spec.serving is not None
    assert again.spec.serving.mode.value == "Adapter"


@pytest.mark.parametrize(("part", "mode"), [("", "Merged"), ("adapter", "Adapter"), ("merged", "Merged")])
def test_the_adapter_of_a_merged_run_can_be_asked_by_its_folder(tmp_path: Path, part: str, mode: str) -> None:
    folder = finished_run(tmp_path / "run", method="LoRA", merge={"enabled": True})
    (folder / part).mkdir(exist_ok=True)
    asked = local_part(folder / part)
    assert asked is not None
    assert asked.root == folder
    serving = serving_config(load_config(asked.root), asked.mode).spec.serving
    assert serving is not None
    assert serving.mode.value == mode


def test_a_folder_that_no_run_has_made_is_no_part_of_one(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    (tmp_path / "adapter").mkdir()
    assert local_part(tmp_path / "adapter") is None
    assert local_part(folder / "adapter") is None
    assert local_part(tmp_path) is None


def test_an_adapter_can_be_asked_before_it_is_merged(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", method="LoRA", merge={"enabled": True})
    (folder / "result.json").write_text('{"prepare": {}, "train": {}}')
    command = serve_command(load_config(folder), "127.0.0.1", 1, ServingMode.ADAPTER)
    assert command[1] == "serve"
    with pytest.raises(CommandError, match="stage merge is not done yet"):
        serve_command(load_config(folder), "127.0.0.1", 1)


def test_as_json_the_whole_conversation_is_printed(endpoint: str, key: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["-m", "Who are you?", "-m", "And then?", "-o", "json"]
    assert main(["chat", "tuned", "--url", endpoint, "--api-key-file", key, *words]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["model"] == "tuned"
    assert [message["role"] for message in printed["messages"]] == ["user", "assistant"] * 2
    assert printed["messages"][3]["content"] == "tuned heard 'And then?' after 2"


def test_nothing_to_ask_is_told_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = finished_run(tmp_path / "run")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["chat", str(folder)]) == 1
    assert capfd.readouterr().err.startswith("error: found nothing to ask: give --message, pipe a question")


def test_run_can_serve_what_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = install_fakes(tmp_path / "bin")
    (tmp_path / "rows.jsonl").touch()
    manifest = changed(valid_manifest("tuned"), "spec.model.source", f"file://{tmp_path}")
    manifest = changed(manifest, "spec.datasets", [{"source": f"file://{tmp_path}/rows.jsonl"}])
    manifest = changed(manifest, "spec.resources.gpusPerNode", 0)
    program = (
        f"import sys; sys.executable = {str(fakes)!r}; from finetune_operator.cli.main import main; sys.exit(main())"
    )
    command = [f"{sys.prefix}/bin/python", "-c", program, "run", "-", "--serve", "--port", "0"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdin is not None
    process.stdin.write(json.dumps(manifest))
    process.stdin.close()
    process.stdin = None
    eventually((tmp_path / "finetune-runs" / "tuned" / "server.pid").exists)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "tuned: serving as model tuned on http://127.0.0.1:0/v1" in out
