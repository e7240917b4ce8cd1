"""A volume that fills up or becomes read-only ends training with exit code 72; what was saved before is whole."""

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_operator.api.outcome import ExitCode
from finetune_operator.api.run import RunConfig
from support_wait import eventually
from trainer_process import StageProcess, run_stages, trainer_log
from trainer_runs import IDENTITY, IDENTITY_ROWS, identity_model, make_run

STEPS_BETWEEN = 5
PATIENCE = 240
"""Seconds for imports and a few steps on a machine that is busy."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    path = tmp_path / "job"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def run(volume: Path, model: Path) -> RunConfig:
    training = {"maxSteps": 100_000, "perDeviceBatchSize": 2, "gradientAccumulationSteps": 1}
    fields = {"method": "LoRA", "training": training, "logging": {"steps": 1}}
    made = make_run(volume, model, IDENTITY, dataset=IDENTITY_ROWS, checkpoints={"steps": STEPS_BETWEEN}, **fields)
    assert run_stages(made, "prepare").code == 0
    return made


def fill(volume: Path) -> Path:
    """A file that takes up all the room there is, and when called again what has become free since."""
    filler = volume / "filler"
    with filler.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return filler


def remount(volume: Path, mode: str) -> bool:
    """Whether it could be done; a file that is open for writing prevents it."""
    return subprocess.run(["mount", "-o", f"remount,{mode}", volume], capture_output=True, check=False).returncode == 0


def goes_on(run: RunConfig, since: int) -> None:
    """Training resumes from a checkpoint that was saved before, and logs on."""
    process = StageProcess(run, "train")
    process.wait_for("resuming from step ", PATIENCE)
    resumed = int(process.log.read_text().partition("resuming from step ")[2].split()[0])
    assert since - STEPS_BETWEEN <= resumed <= since + 1
    process.wait_for(f"step {resumed + 1}/", PATIENCE)
    process.process.kill()
    process.end(PATIENCE)


def test_training_goes_on_from_the_last_checkpoint_once_there_is_room_again(volume: Path, run: RunConfig) -> None:
    process = StageProcess(run, "train")
    process.wait_for(f"step {2 * STEPS_BETWEEN}/", PATIENCE)
    filler = fill(volume)
    # Where an older checkpoint was just being deleted, there would be room for the next ones.
    eventually(lambda: fill(volume) and process.process.poll() is not None, PATIENCE, "training has ended")
    ended = process.end(PATIENCE)
    assert ended.code == ExitCode.STORAGE_FULL, ended.output
    assert ended.message is not None
    assert ended.message.reason == "StorageFull"
    assert not list(run.paths.root.glob(".*.tmp")), "what did not fit was left lying"
    filler.unlink()
    goes_on(run, max(line["current_steps"] for line in trainer_log(run) if "loss" in line))


def test_a_volume_that_becomes_read_only_is_a_fault_of_the_storage(volume: Path, run: RunConfig) -> None:
    process = StageProcess(run, "train")
    process.wait_for(f"step {2 * STEPS_BETWEEN}/", PATIENCE)
    eventually(lambda: remount(volume, "ro"))
    ended = process.end(PATIENCE)
    assert ended.code == ExitCode.STORAGE_FULL, ended.output
    assert ended.message is not None
    assert "Read-only file system" in ended.message.message
    assert remount(volume, "rw")
    goes_on(run, max(line["current_steps"] for line in trainer_log(run) if "loss" in line))
