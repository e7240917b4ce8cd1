"""SIGTERM at any moment ends with exit code 75 and loses at most a step; what was interrupted is made good."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.device import CPU, DEVICE_VARIABLE
from finetune_operator.api.outcome import ExitCode
from finetune_operator.api.run import RunConfig
from support_wait import eventually
from trainer_process import StageProcess, losses, run_stages, trainer_log
from trainer_runs import IDENTITY, IDENTITY_ROWS, identity_model, make_run

TRAINING = {"maxSteps": 8, "perDeviceBatchSize": 4, "gradientAccumulationSteps": 1, "learningRate": "2e-3"}
PATIENCE = 240
"""Seconds for imports and a few steps on a machine that is busy."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_model(tmp_path_factory.mktemp("model"))


def prepared(folder: Path, model: Path, data: Path = IDENTITY, **spec: Any) -> RunConfig:
    fields = {"method": "LoRA", "lora": {"dropout": "0.1"}, "training": TRAINING, "logging": {"steps": 1}, **spec}
    folder.mkdir(exist_ok=True)
    run = make_run(folder / "job", model, data, dataset=IDENTITY_ROWS, **fields)
    assert run_stages(run, "prepare").code == 0
    return run


def stopped(run: RunConfig, text: str, *, times: int = 1, **environment: str) -> StageProcess:
    """A training that was told to stop once it had printed the text."""
    process = StageProcess(run, "train", **environment)
    if text:
        process.wait_for(text, PATIENCE)
    for _ in range(times):
        process.process.send_signal(signal.SIGTERM)
    return process


def test_before_anything_is_loaded_there_is_nothing_to_save_and_nothing_to_lose(tmp_path: Path, model: Path) -> None:
    run = prepared(tmp_path, model)
    process = StageProcess(run, "train")
    # The launcher listens once it has started the process that trains.
    ended = stopped_when_started(process).end(PATIENCE)
    assert ended.code == ExitCode.PREEMPTED, ended.output
    assert ended.message is not None
    assert ended.message.reason == "Preempted"
    assert not run.paths.checkpoints.exists()


def stopped_when_started(process: StageProcess) -> StageProcess:
    children = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children")
    eventually(lambda: children.read_text().split())
    process.process.send_signal(signal.SIGTERM)
    return process


def test_an_evaluation_is_given_up_and_made_good_when_training_goes_on(tmp_path: Path, model: Path) -> None:
    evaluated = {"evaluation": {"fraction": "0.5", "steps": 4, "perDeviceBatchSize": 1}, "checkpoints": {"steps": 100}}
    # So many rows that the signal comes while they are evaluated, however busy the machine is.
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(8 * json.loads(IDENTITY.read_text())))
    undisturbed = prepared(tmp_path / "undisturbed", model, rows, **evaluated)
    assert run_stages(undisturbed, "train").code == 0

    run = prepared(tmp_path / "stopped", model, rows, **evaluated)
    # Step 4 is printed, and then evaluated.
    ended = stopped(run, "step 4/8").end(PATIENCE)
    assert ended.code == ExitCode.PREEMPTED, ended.output
    assert "after step 4, which is saved" in ended.output
    assert not [line for line in trainer_log(run) if "eval_loss" in line]

    ended = run_stages(run, "train")
    assert ended.code == 0, ended.output
    assert evaluations(run) == evaluations(undisturbed)
    assert losses(run) == losses(undisturbed)
    assert adapter(run) == adapter(undisturbed)


def evaluations(run: RunConfig) -> list[tuple[int, float]]:
    return [(line["current_steps"], line["eval_loss"]) for line in trainer_log(run) if "eval_loss" in line]


def adapter(run: RunConfig) -> bytes:
    return (run.paths.adapter / "adapter_model.safetensors").read_bytes()


def test_two_processes_stop_together_however_often_they_are_told_and_resume_to_the_same_weights(
    tmp_path: Path, model: Path
) -> None:
    # So many steps that the signals come before the last one.
    training = {**TRAINING, "maxSteps": 40}
    two = {"training": training, "resources": {"gpusPerNode": 2}, "deepspeed": {"stage": 2}}
    undisturbed = prepared(tmp_path / "undisturbed", model, **two)
    assert run_stages(undisturbed, "train", **{DEVICE_VARIABLE: CPU}).code == 0

    run = prepared(tmp_path / "stopped", model, **two)
    ended = stopped(run, "step 3/40", times=2, **{DEVICE_VARIABLE: CPU}).end(PATIENCE)
    assert ended.code == ExitCode.PREEMPTED, ended.output
    assert ended.message is not None
    saved = int(ended.message.figures["step"])
    assert saved >= max(losses(run))

    ended = run_stages(run, "train", **{DEVICE_VARIABLE: CPU})
    assert ended.code == 0, ended.output
    assert f"resuming from step {saved}" in ended.output
    assert losses(run) == losses(undisturbed)
    assert adapter(run) == adapter(undisturbed)


def test_a_training_that_was_killed_while_its_result_was_written_makes_no_step_twice(
    tmp_path: Path, model: Path
) -> None:
    run = prepared(tmp_path, model)
    assert run_stages(run, "train").code == 0
    made, told = adapter(run), [without_times(line) for line in trainer_log(run)]
    # As if the process had been killed after the last checkpoint.
    run.paths.result.unlink()
    shutil.rmtree(run.paths.adapter)
    ended = run_stages(run, "train")
    assert ended.code == 0, ended.output
    assert "resuming from step 8" in ended.output
    assert adapter(run) == made
    assert [without_times(line) for line in trainer_log(run)] == told


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    speed = ("tokens_per_second", "tflops_per_second", "share_of_limit", "data_wait_share")
    timed = ("elapsed_time", "remaining_time", *speed, "timestamp")
    return {key: value for key, value in line.items() if key not in timed}
