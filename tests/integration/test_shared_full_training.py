"""A Full training by two processes that each update a part of the weights: it learns what one does, and resumes."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from finetune_operator.api.run import RunConfig
from trainer_process import losses, run_stages
from trainer_runs import IDENTITY, IDENTITY_ROWS, bf16_identity_model, make_run

STEP = {"maxSteps": 6, "learningRate": "2e-3", "fusedKernels": "Enabled"}


def job(root: Path, model: Path, gpus: int) -> RunConfig:
    training = {**STEP, "perDeviceBatchSize": 2, "gradientAccumulationSteps": 2 // gpus}
    return make_run(
        root,
        model,
        IDENTITY,
        dataset=IDENTITY_ROWS,
        training=training,
        checkpoints={"steps": 3, "limit": 5},
        logging={"steps": 1},
        resources={"gpusPerNode": gpus},
    )


def delivered(run: RunConfig) -> dict[str, torch.Tensor]:
    return load_file(run.paths.model / "model.safetensors")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bf16_identity_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, model: Path) -> RunConfig:
    run = job(tmp_path_factory.mktemp("two") / "job", model, 2)
    ended = run_stages(run, "prepare", "train", FINETUNE_DEVICE="cpu")
    assert ended.code == 0, ended.output
    return run


def test_two_processes_learn_what_one_does(tmp_path: Path, model: Path, two: RunConfig) -> None:
    one = job(tmp_path / "job", model, 1)
    ended = run_stages(one, "prepare", "train", FINETUNE_DEVICE="cpu")
    assert ended.code == 0, ended.output
    assert losses(two)[6] < losses(two)[1] - 0.3
    assert losses(two) == pytest.approx(losses(one), abs=0.02), "more than the gradients' rounding"
    assert {weight.dtype for weight in delivered(two).values()} == {torch.bfloat16}


def test_each_process_keeps_a_part_of_the_optimizer_s_state(two: RunConfig) -> None:
    checkpoint = two.paths.checkpoints / "checkpoint-6"
    parts = [
        set(torch.load(checkpoint / name, weights_only=True)["state"]) for name in ("optimizer.pt", "optimizer-1.pt")
    ]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert len(parts[0] | parts[1]) == len(list(AutoModelForCausalLM.from_pretrained(two.paths.model).parameters()))


def test_a_training_that_ended_in_the_middle_goes_on_to_the_same_weights(two: RunConfig) -> None:
    before, its_losses = delivered(two), losses(two)
    shutil.rmtree(two.paths.checkpoints / "checkpoint-6")
    shutil.rmtree(two.paths.model)
    two.paths.result.unlink()
    ended = run_stages(two, "train", FINETUNE_DEVICE="cpu")
    assert ended.code == 0, ended.output
    assert "resuming from step 3" in ended.output
    after = delivered(two)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert losses(two) == its_losses
