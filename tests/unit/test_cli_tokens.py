"""`finetune tokens`: one trainer for all jobs, its output as it is, and nothing left on the disk."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.manifest_yaml import dump_all
from finetune_operator.cli.main import main
from trainer_runs import chat, identity_model, write_lines
from wrong_manifests import changed, valid_manifest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and an empty one for temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def manifest(folder: Path, name: str, data: str = "rows.jsonl") -> dict[str, Any]:
    made = changed(valid_manifest(name), "spec.model.source", f"file://{folder}/model")
    return changed(made, "spec.datasets", [{"source": f"file://{folder}/{data}"}])


def write(folder: Path, *documents: dict[str, Any]) -> str:
    path = folder / "jobs.yaml"
    path.write_text(dump_all(documents))
    return str(path)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A trainer of our own beside the interpreter."""
    program = folder / "bin" / "finetune-trainer"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "bin" / "python"))
    (folder / "model").mkdir()
    (folder / "rows.jsonl").write_text("{}\n")


def test_the_tokens_of_all_jobs_are_printed_and_nothing_stays(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    identity_model(folder / "model")
    write_lines(folder / "rows.jsonl", [chat("a", "b"), chat("c", "d")])
    write_lines(folder / "bad.jsonl", [{"text": "x"}])
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "rows"},
        "data": {"rows.jsonl": json.dumps(chat("e", "f"))},
    }
    from_map = changed(manifest(folder, "third"), "spec.datasets", [{"source": "configmap://rows/rows.jsonl"}])
    nodes = changed(manifest(folder, "first"), "spec.resources", {"nodes": 2})
    nodes = changed(nodes, "spec.storage", {"accessMode": "ReadWriteMany"})
    file = write(folder, nodes, manifest(folder, "second", "bad.jsonl"), from_map, config_map)
    before = sorted(folder.rglob("*"))
    capfd.readouterr()
    assert main(["tokens", file]) == 65
    printed = capfd.readouterr()
    shown = [json.loads(line) for line in printed.out.splitlines()]
    assert [(line["job"], line["source"]) for line in shown] == [
        ("first", f"{folder}/rows.jsonl:1"),
        ("first", f"{folder}/rows.jsonl:2"),
        ("third", "configmap://rows/rows.jsonl:1"),
    ]
    assert all(len(line["input_ids"]) == len(line["labels"]) for line in shown)
    assert f"error: second:   {folder}/bad.jsonl:1: " in printed.err
    assert sorted(folder.rglob("*")) == before


def test_hundreds_of_jobs_start_one_trainer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder, monkeypatch, f'echo "$@" >> {folder}/calls')
    jobs = [manifest(folder, f"job-{index}") for index in range(200)]
    assert main(["tokens", write(folder, *jobs), "--packed", "--render", "--evaluation"]) == 0
    (call,) = (folder / "calls").read_text().splitlines()
    words = call.split()
    assert words[0] == "tokens"
    assert words[1:4] == ["--packed", "--render", "--evaluation"]
    runs = [Path(word).name for word in words[4:] if word != "--run"]
    assert runs == [f"job-{index}.json" for index in range(200)]
    assert os.listdir(folder / "temporary") == []


def test_all_problems_of_all_jobs_are_told_before_anything_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(folder, monkeypatch, f"touch {folder}/started")
    claim = changed(manifest(folder, "first"), "spec.datasets", [{"source": "pvc://chats/rows.jsonl"}])
    secret = changed(manifest(folder, "second"), "spec.model.tokenSecret", {"name": "hub", "key": "token"})
    assert main(["tokens", write(folder, claim, secret, manifest(folder, "third", "gone.jsonl"))]) == 1
    errors = capsys.readouterr().err
    for words in ("--claim chats=DIR", "--secret hub=DIR", "gone.jsonl does not exist"):
        assert words in errors
    assert not (folder / "started").exists()


def test_claims_and_secrets_are_what_the_flags_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        folder, monkeypatch, f'cp "$3" {folder}/run.json; cat "$(dirname "$3")"/../secrets/hub/token > {folder}/token'
    )
    (folder / "keys").mkdir()
    (folder / "keys" / "token").write_text("secret")
    job = changed(manifest(folder, "job"), "spec.datasets", [{"source": "pvc://chats/rows.jsonl"}])
    job = changed(job, "spec.model.tokenSecret", {"name": "hub", "key": "token"})
    flags = ["--claim", f"chats={folder}", "--secret", f"hub={folder}/keys"]
    assert main(["tokens", write(folder, job), *flags]) == 0
    assert json.loads((folder / "run.json").read_text())["claims"] == {"chats": str(folder)}
    assert (folder / "token").read_text() == "secret"
    assert (folder / "keys" / "token").exists()
    assert os.listdir(folder / "temporary") == []


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("exit 66", 66, ""),
        ("kill -PIPE $$", 141, ""),
        ("kill -INT $$", 130, ""),
        ("kill -KILL $$", 137, "error: finetune-trainer tokens: killed by SIGKILL\n"),
    ],
)
def test_the_exit_code_is_the_trainers(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    code: int,
    words: str,
) -> None:
    install(folder, monkeypatch, f"touch $TMPDIR/half-done; {script}")
    assert main(["tokens", write(folder, manifest(folder, "job"))]) == code
    assert capsys.readouterr().err == words
    assert os.listdir(folder / "temporary") == []
