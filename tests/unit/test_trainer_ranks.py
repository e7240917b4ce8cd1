"""Several processes end together, and the words of the one that failed first are the stage's."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.train import ranks
from finetune_trainer.train.ranks import Failed, needs_ranks, rank_environments, run_processes
from support_wait import eventually

FOREVER = "import signal, threading; threading.Event().wait(60)"


def process(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code])


def spec(nodes: int = 1, gpus: int = 1, **fields: object) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {
            "model": {"source": "pvc://models/tiny"},
            "datasets": [{"source": "pvc://data/rows.jsonl"}],
            "method": "LoRA",
            "resources": {"nodes": nodes, "gpusPerNode": gpus},
            "storage": {"accessMode": "ReadWriteMany"},
            **fields,
        }
    )


def test_all_processes_done_is_success() -> None:
    assert run_processes([process("pass"), process("pass")]) is None


def test_when_one_process_fails_the_others_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "SECONDS_TO_END", 0.5)
    waiting = process(FOREVER)
    assert run_processes([waiting, process("raise SystemExit(73)")]) == Failed(rank=1, code=73)
    assert waiting.wait(10) == -signal.SIGKILL


def test_a_process_that_was_killed_is_told_by_its_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "SECONDS_TO_END", 0.5)
    assert run_processes([process("import os; os.kill(os.getpid(), 9)")]) == Failed(rank=0, code=-signal.SIGKILL)


def test_a_stop_signal_is_passed_on_to_every_process(tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, sys, threading\n"
        "stop = threading.Event()\n"
        "signal.signal(signal.SIGTERM, lambda *_: stop.set())\n"
        f"pathlib.Path({str(tmp_path)!r}, sys.argv[1]).touch()\n"
        "stop.wait(60)\n"
        "raise SystemExit(75)\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("a", "b")]

    def stop_when_ready() -> None:
        eventually(lambda: len(list(tmp_path.iterdir())) == 2, 20)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_when_ready).start()
    began = time.monotonic()
    failed = run_processes(processes)
    assert failed is not None
    assert failed.code == 75
    assert [each.wait(5) for each in processes] == [75, 75]
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("of", "needed"),
    [
        (spec(), False),
        (spec(gpus=0), False),
        (spec(gpus=2), True),
        (spec(nodes=2), True),
        (spec(deepspeed={"stage": 2}), True),
    ],
)
def test_several_processes_are_started_only_where_needed(of: FineTuneJobSpec, needed: bool) -> None:
    assert needs_ranks(of) is needed


def test_every_process_is_told_its_place_among_all_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = {
        "PET_NNODES": "2",
        "PET_NODE_RANK": "1",
        "PET_MASTER_ADDR": "job-train-0-0.job",
        "PET_MASTER_PORT": "29400",
    }
    for name, value in placed.items():
        monkeypatch.setenv(name, value)
    first, second = rank_environments(2)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    assert [first[name] for name in names] == ["2", "0", "4", "2", "job-train-0-0.job", "29400"]
    assert [second[name] for name in names] == ["3", "1", "4", "2", "job-train-0-0.job", "29400"]


def test_on_one_node_all_processes_share_a_free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    first, second = rank_environments(2)
    assert first["MASTER_PORT"] == second["MASTER_PORT"]
    assert first["MASTER_ADDR"] == "127.0.0.1"
