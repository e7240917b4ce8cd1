"""Two processes that compute their shares of whole optimizer steps learn what they learn batch by batch."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from accelerate.data_loader import SeedableRandomSampler

from finetune_operator.api.device import CPU, DEVICE_VARIABLE
from finetune_operator.api.result import read_results
from finetune_operator.api.run import RunConfig
from finetune_operator.api.tokenization import Packing
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.store import TRAIN, RowStore
from finetune_trainer.train.data import SequenceDataset
from finetune_trainer.train.documents import PASSES, DocumentCollator
from finetune_trainer.train.ranks import rank_environments
from finetune_trainer.train.step_shares import StepShares
from trainer_process import losses, trainer_log
from trainer_runs import IDENTITY, chat, identity_model, make_run, write_lines, write_run

SUPPORT = Path(__file__).parents[1] / "support"
ROWS, HELD_BACK = 26, 5
"""An epoch is two steps of eight rows, and one of five that is filled up with the epoch's first."""
PASS_TOKENS = 150
TRAINING = {"maxSteps": 5, "gradientAccumulationSteps": 4, "learningRate": "2e-3"}
SECONDS = 240
"""For all trainings, on a machine that is busy."""
MIDDLE = 2
"""Steps after which a training in its first epoch is killed."""


@dataclass(frozen=True)
class Trained:
    """The same rows, trained on in four ways."""

    shares: RunConfig
    batches: RunConfig
    alone: RunConfig
    resumed: RunConfig


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    identity_model(folder / "model")
    write_lines(folder / "rows.jsonl", _rows())
    two = {"perDeviceBatchSize": 1}
    jobs = Trained(
        shares=_job(folder, "shares", 2, fusedKernels="Enabled", **two),
        batches=_job(folder, "batches", 2, fusedKernels="Disabled", **two),
        alone=_job(folder, "alone", 0, fusedKernels="Enabled", perDeviceBatchSize=2),
        resumed=_job(folder, "resumed", 2, fusedKernels="Enabled", **two),
    )
    prepare(jobs.alone)
    for job in (jobs.shares, jobs.batches):
        shutil.copytree(jobs.alone.root, job.root, symlinks=True)
    files = [str(write_run(job, folder)) for job in (jobs.batches, jobs.shares, jobs.resumed, jobs.alone)]
    processes = [
        *_started(2, folder / "two", *files[:2], f"{files[2]}@{MIDDLE}"),
        *_started(1, folder / "one", files[3]),
    ]
    try:
        assert [process.wait(SECONDS) for process in processes] == [0, 0, 0], _errors(folder)
    finally:
        for process in processes:
            process.kill()
    return jobs


def test_processes_need_different_numbers_of_passes(trained: Trained) -> None:
    # Else nothing here would show that they exchange gradients once a step.
    assert RowStore(trained.shares.paths.data / TRAIN).sequences == ROWS - HELD_BACK
    first, second = _passes(trained.shares, process=0), _passes(trained.shares, process=1)
    assert len(first) == len(second) == 3
    assert first != second


def test_the_losses_are_those_of_steps_taken_batch_by_batch(trained: Trained) -> None:
    assert losses(trained.shares) == pytest.approx(losses(trained.batches), abs=1e-5)


def test_the_losses_are_those_of_one_process_until_the_epoch_is_filled_up(trained: Trained) -> None:
    made, expected = losses(trained.shares), losses(trained.alone)
    assert [made[1], made[2]] == pytest.approx([expected[1], expected[2]], abs=1e-5)


def test_rows_held_back_are_evaluated_alike(trained: Trained) -> None:
    made, expected = _evaluations(trained.shares), _evaluations(trained.batches)
    assert len(made) == 2
    assert made == pytest.approx(expected, abs=1e-4)


def test_a_training_resumed_in_the_middle_of_an_epoch_goes_on_with_the_next_steps_rows(trained: Trained) -> None:
    assert losses(trained.resumed) == losses(trained.shares)
    adapters = [
        (job.paths.adapter / "adapter_model.safetensors").read_bytes() for job in (trained.resumed, trained.shares)
    ]
    assert adapters[0] == adapters[1]


def test_tokens_and_epochs_are_counted_alike(trained: Trained) -> None:
    tokens = [read_results(job.paths.result)["train"]["tokens"] for job in (trained.shares, trained.batches)]
    assert tokens[0] == tokens[1] > 0
    assert read_results(trained.resumed.paths.result)["train"]["tokens"] == tokens[0]
    epochs = [line["epoch"] for line in trainer_log(trained.shares) if "loss" in line]
    assert epochs == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3], abs=0.01)


def _evaluations(run: RunConfig) -> list[float]:
    return [line["eval_loss"] for line in trainer_log(run) if "eval_loss" in line]


def _job(folder: Path, name: str, gpus: int, **training: Any) -> RunConfig:
    return make_run(
        folder / name,
        folder / "model",
        folder / "rows.jsonl",
        name=name,
        dataset={"format": "Messages"},
        method="LoRA",
        training={**TRAINING, **training},
        resources={"gpusPerNode": gpus},
        logging={"steps": 1},
        checkpoints={"steps": MIDDLE, "limit": 5},
        evaluation={"fraction": str(HELD_BACK / ROWS), "steps": 3},
    )


def _rows() -> list[Any]:
    """Chats of very different lengths."""
    rows = json.loads(IDENTITY.read_text())[:ROWS]
    return [chat(row["instruction"], row["output"] * (1 + number * 5 % 7)) for number, row in enumerate(rows)]


def _started(count: int, said: Path, *jobs: str) -> list[subprocess.Popen[bytes]]:
    command = [sys.executable, str(SUPPORT / "train_ranks.py"), str(PASS_TOKENS), *jobs]
    common = {"PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path]), "OMP_NUM_THREADS": "1", DEVICE_VARIABLE: CPU}
    processes = []
    for told in rank_environments(count):
        with said.with_suffix(f".{told['RANK']}.said").open("wb") as file:
            processes.append(subprocess.Popen(command, env={**told, **common}, stdout=file, stderr=file))
    return processes


def _errors(folder: Path) -> str:
    return "\n".join(f"{file.name}: {file.read_text()[-4000:]}" for file in sorted(folder.glob("*.said")))


def _passes(run: RunConfig, process: int) -> list[int]:
    """Passes of each step of the first epoch."""
    sequences = SequenceDataset(RowStore(run.paths.data / TRAIN))
    order = SeedableRandomSampler(range(len(sequences)), data_seed=run.spec.training.seed)
    collate = DocumentCollator(Packing.NONE, PASS_TOKENS, PASS_TOKENS)
    shares = StepShares(order, batch=1, batches=4, processes=2, process=process)
    return [len(collate([sequences[row] for row in share])[PASSES]) for share in shares]
