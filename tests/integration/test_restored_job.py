"""A job that comes back (pruned and synced again, or restored from a backup) on a claim with its results is not run again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_operator.api.result import read_results
from finetune_operator.api.run import RunConfig
from trainer_process import run_stages
from trainer_runs import IDENTITY, identity_model, make_run, write_run

NAMES = {"name": "Pebble", "author": "the River workshop"}


def merge(run: RunConfig) -> None:
    command = [
        Path(sys.executable).with_name("finetune-merger"),
        "merge",
        "--run",
        write_run(run, Path(run.root).parent),
    ]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def made_files(run: RunConfig) -> dict[str, tuple[int, int]]:
    """Inode and time of every file with weights."""
    facts = {path: path.stat() for path in run.paths.root.rglob("*.safetensors")}
    return {str(path): (fact.st_ino, fact.st_mtime_ns) for path, fact in facts.items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A LoRA job that went through all its stages, with a dataset of its own."""
    folder = tmp_path_factory.mktemp("restored")
    data = folder / "identity.json"
    data.write_bytes(IDENTITY.read_bytes())
    dataset = {"format": "Alpaca", "placeholders": NAMES}
    run = make_run(folder / "job", identity_model(folder / "model"), data, method="LoRA", dataset=dataset)
    ended = run_stages(run, "prepare", "train")
    assert ended.code == 0, ended.output
    merge(run)
    return run


def test_a_job_of_the_same_spec_finds_its_results_and_ends_with_the_same_figures(finished: RunConfig) -> None:
    before, figures = made_files(finished), read_results(finished.paths.result)
    assert any("/merged/" in path for path in before)
    # What a restore writes anew has another time, and a FineTuneJob that is created anew another UID
    data = Path(finished.spec.datasets[0].source.removeprefix("file://"))
    os.utime(data, ns=(1, 1))
    again = finished.model_copy(update={"uid": "another"})
    ended = run_stages(again, "prepare", "train")
    assert (ended.code, "already done" in ended.output) == (0, True)
    assert ended.message is not None
    assert ended.message.figures == figures["train"]
    merge(again)
    assert made_files(again) == before
    assert read_results(again.paths.result)["train"] == figures["train"]
