"""What each engine is started with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.delivery import Serving
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_server.folder import make_served_folder
from finetune_server.vllm_engine import vllm_command

SPEC = {"model": {"source": "file:///m"}, "datasets": [{"source": "file:///d.jsonl"}], "method": "LoRA"}
LISTEN = ["--host", "0.0.0.0", "--port", "8000"]
GUARDED = ("--middleware", "finetune_server.vllm_guard.VllmGuard")


def run_of(root: Path, **spec: Any) -> RunConfig:
    return RunConfig(name="tiny", uid="1", root=str(root), secrets=str(root / "secrets"), spec={**SPEC, **spec})


def command(root: Path, **spec: Any) -> list[str]:
    run = run_of(root, **spec)
    return vllm_command(run, run.spec.serving or Serving(), "0.0.0.0", 8000)


def test_vllm_serves_the_merged_model_under_the_jobs_name(tmp_path: Path) -> None:
    assert command(tmp_path, serving={"gpus": 2}) == [
        *("vllm", "serve", str(tmp_path / "merged"), "--served-model-name", "tiny"),
        *LISTEN,
        *("--tensor-parallel-size", "2"),
        *GUARDED,
    ]


def test_vllm_serves_the_model_of_a_full_fine_tune(tmp_path: Path) -> None:
    assert command(tmp_path, method="Full")[2] == str(tmp_path / "model")


@pytest.mark.parametrize(("rank", "room"), [(1, "8"), (8, "8"), (9, "16"), (200, "256"), (512, "512")])
def test_vllm_serves_an_adapter_under_the_jobs_name_beside_its_base(tmp_path: Path, rank: int, room: str) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/tokenizer_config.json").write_text("{}")
    assert command(tmp_path, lora={"rank": rank}, serving={"mode": "Adapter"}) == [
        *("vllm", "serve", str(tmp_path / "base"), "--tokenizer", str(tmp_path / "adapter")),
        *("--served-model-name", "tiny-base"),
        *("--enable-lora", "--max-lora-rank", room, "--lora-modules", f"tiny={tmp_path / 'adapter'}"),
        *LISTEN,
        *("--tensor-parallel-size", "1"),
        *GUARDED,
    ]


@pytest.mark.parametrize(
    ("lora", "named"),
    [
        ({"doRA": True}, "lora.doRA"),
        ({"modulesToSave": ["lm_head"]}, "lora.modulesToSave"),
        ({"rank": 1000}, "lora.rank 1000"),
    ],
)
def test_an_adapter_that_vllm_cannot_load_is_refused(tmp_path: Path, lora: dict[str, Any], named: str) -> None:
    with pytest.raises(StageFailure) as caught:
        command(tmp_path, lora=lora, serving={"mode": "Adapter"})
    assert caught.value.code is ExitCode.INVALID_SPEC
    assert named in caught.value.message


def serve(root: Path, run: RunConfig, path: Path) -> tuple[int, dict[str, Any]]:
    """Run `finetune-server serve` with ``path`` as PATH; its exit code and what the server or the termination log was told."""
    (root / "run.json").write_text(run.dump())
    environment = {
        **os.environ,
        "PATH": str(path),
        "FINETUNE_TERMINATION_LOG": str(root / "end"),
        "TOLD": str(root / "told"),
    }
    arguments = [sys.executable, "-m", "finetune_server.main", "serve", "--run", str(root / "run.json")]
    ended = subprocess.run(arguments, env=environment, timeout=60)
    return ended.returncode, json.loads((root / ("told" if (root / "told").exists() else "end")).read_text())


def test_serving_on_gpus_becomes_vllm_with_the_key_in_its_environment(tmp_path: Path) -> None:
    program = tmp_path / "bin/vllm"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "json.dump([os.getpid(), os.environ['VLLM_API_KEY'], *sys.argv[1:]], open(os.environ['TOLD'], 'w'))\n"
    )
    program.chmod(0o755)
    (tmp_path / "secrets/chat-key").mkdir(parents=True)
    (tmp_path / "secrets/chat-key/token").write_text("sesame")
    run = run_of(tmp_path, serving={"apiKeySecret": {"name": "chat-key"}})
    code, told = serve(tmp_path, run, program.parent)
    assert code == 0
    assert told[1:4] == ["sesame", "serve", str(tmp_path / "merged")]
    assert "sesame" not in told[2:]


def test_an_image_without_vllm_says_so(tmp_path: Path) -> None:
    code, end = serve(tmp_path, run_of(tmp_path, serving={"engine": "VLLM"}), tmp_path)
    assert code == ExitCode.INVALID_SPEC
    assert "this image has no vLLM" in end["message"]


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        ({"serving": {"gpus": 0}}, "merged/config.json"),
        ({"serving": {"gpus": 0, "mode": "Adapter"}}, "adapter/adapter_config.json"),
        ({"serving": {"gpus": 0}, "method": "Full"}, "model/config.json"),
    ],
)
def test_a_model_that_is_not_there_is_named(tmp_path: Path, spec: dict[str, Any], missing: str) -> None:
    with pytest.raises(StageFailure) as caught:
        make_served_folder(run_of(tmp_path, **spec), tmp_path)
    assert caught.value.code is ExitCode.MODEL_UNUSABLE
    assert str(tmp_path / missing) in caught.value.message


def test_an_adapter_is_put_together_with_its_base_but_keeps_its_own_tokenizer(tmp_path: Path) -> None:
    files = {
        "base": [
            "config.json",
            "model.safetensors",
            "tokenizer_config.json",
            "tokenizer.json",
            "merges.txt",
            "generation_config.json",
        ],
        "adapter": [
            "adapter_config.json",
            "adapter_model.safetensors",
            "tokenizer_config.json",
            "generation_config.json",
        ],
    }
    for folder, names in files.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text(folder)
    (tmp_path / "scratch").mkdir()
    served = make_served_folder(run_of(tmp_path, serving={"mode": "Adapter"}), tmp_path / "scratch")
    assert served.name == "tiny"
    assert {path.name: path.read_text() for path in served.iterdir()} == {
        "config.json": "base",
        "model.safetensors": "base",
        "adapter_config.json": "adapter",
        "adapter_model.safetensors": "adapter",
        "tokenizer_config.json": "adapter",
        "generation_config.json": "adapter",
    }
