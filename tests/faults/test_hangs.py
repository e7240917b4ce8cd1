"""Training that really hangs is ended with exit code 74, and the log says where it stood."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.device import CPU, DEVICE_VARIABLE
from finetune_operator.api.outcome import ExitCode
from finetune_operator.api.run import RunConfig, WatchdogBounds
from support_wait import eventually
from trainer_process import StageProcess, run_stages
from trainer_runs import IDENTITY, IDENTITY_ROWS, identity_model, make_run

HASTY = WatchdogBounds(seconds=8, median_steps=20, seconds_otherwise=240)
PATIENCE = 240
"""Seconds for imports and a few steps on a machine that is busy."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_model(tmp_path_factory.mktemp("model"))


def prepared(folder: Path, model: Path, **spec: Any) -> RunConfig:
    """A run that would go on for hours, and whose watchdog is impatient once steps are made."""
    training = {"maxSteps": 100_000, "perDeviceBatchSize": 2, "gradientAccumulationSteps": 1}
    fields = {"method": "LoRA", "training": training, "logging": {"steps": 1}, **spec}
    run = make_run(folder / "job", model, IDENTITY, dataset=IDENTITY_ROWS, **fields)
    run = run.model_copy(update={"watchdog": HASTY})
    assert run_stages(run, "prepare").code == 0
    return run


def test_a_training_that_waits_for_a_disk_that_does_not_answer_is_ended(tmp_path: Path, model: Path) -> None:
    run = prepared(tmp_path, model)
    training = StageProcess(run, "train")
    training.wait_for("step 3/", PATIENCE)
    # Opening a FIFO blocks until somebody reads, as a dead network volume would.
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "fifo").rename(run.paths.trainer_log)
    ended = training.end(PATIENCE)
    assert ended.code == ExitCode.NO_PROGRESS, ended.output
    assert ended.message is not None
    assert ended.message.reason == "NoProgress"
    assert "expected at most" in ended.message.message
    assert "process 0 is at" in ended.message.message
    assert "log.py" in ended.message.message
    stacks = ended.output.partition("--- stacks of process 0")[2]
    assert "in append" in stacks
    assert "in on_log" in stacks


def test_one_stopped_process_of_two_ends_both(tmp_path: Path, model: Path) -> None:
    run = prepared(tmp_path, model, resources={"gpusPerNode": 2})
    training = StageProcess(run, "train", **{DEVICE_VARIABLE: CPU})
    training.wait_for("step 3/", PATIENCE)
    first, second = children(training.process.pid)
    os.kill(second, signal.SIGSTOP)
    ended = training.end(PATIENCE)
    assert ended.code == ExitCode.NO_PROGRESS, ended.output
    assert ended.message is not None
    assert "it cannot answer; State: T (stopped)" in ended.message.message
    assert "--- stacks of process 0" in ended.output
    # Whichever it is that the first one waits in: the gradients' sum, or the agreement on a loss or a stop.
    collectives = ("all_reduce", "backward", "all_gather", "gather", "broadcast", "barrier")
    assert any(name in ended.output for name in collectives), "the stack does not name the collective"
    eventually(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in (first, second)))


def test_a_training_process_that_is_suspended_with_its_watchdog_goes_on_afterwards(tmp_path: Path, model: Path) -> None:
    run = prepared(tmp_path, model)
    training = StageProcess(run, "train")
    training.wait_for("step 3/", PATIENCE)
    pids = [training.process.pid, *children(training.process.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    signal.sigtimedwait([signal.SIGUSR2], 2 * HASTY.seconds)
    before = training.log.read_text()
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: len(training.log.read_text()) > len(before) + 200)
    training.process.send_signal(signal.SIGTERM)
    assert training.end(PATIENCE).code == ExitCode.PREEMPTED


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
