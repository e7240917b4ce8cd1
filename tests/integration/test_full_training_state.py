"""A Full training whose weights stay bf16, for real: it learns what float32 weights learn, and resumes to the last bit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.store import Meta
from finetune_trainer.train import fused
from finetune_trainer.train.session import train_here
from trainer_process import losses
from trainer_runs import IDENTITY, IDENTITY_ROWS, bf16_identity_model, make_run

STEPS = {"maxSteps": 6, "perDeviceBatchSize": 2, "gradientAccumulationSteps": 4, "learningRate": "2e-3"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bf16_identity_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    root = tmp_path_factory.mktemp("prepared") / "job"
    prepare(job(root, model, "Enabled"))
    return root


def job(root: Path, model: Path, switch: str) -> RunConfig:
    training = {**STEPS, "fusedKernels": switch}
    checkpoints = {"steps": 3, "limit": 5}
    return make_run(
        root, model, IDENTITY, dataset=IDENTITY_ROWS, training=training, checkpoints=checkpoints, logging={"steps": 1}
    )


def trained(run: RunConfig, prepared: Path, checkpoint: Path | None = None) -> dict[str, torch.Tensor]:
    """The weights that a training delivers, which goes on from ``checkpoint``."""
    shutil.copytree(prepared, run.paths.root, symlinks=True)
    if checkpoint is not None:
        shutil.copytree(checkpoint, run.paths.checkpoints / checkpoint.name)
    train_here(run, Meta.load(run.paths.data), "identity")
    return load_file(run.paths.model / "model.safetensors")


def state_of(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"][0]
    return state


@pytest.mark.parametrize("tokens", [4096, 150], ids=["one pass", "several passes"])
def test_it_learns_the_same_and_goes_on_from_a_checkpoint_to_the_same_weights(
    tmp_path: Path, model: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    monkeypatch.setattr(fused, "_CPU_TOKENS", tokens)
    in_float32 = job(tmp_path / "plain", model, "Disabled")
    trained(in_float32, prepared)
    whole, again = (job(tmp_path / name, model, "Enabled") for name in ("whole", "again"))
    delivered = trained(whole, prepared)
    assert {weight.dtype for weight in delivered.values()} == {torch.bfloat16}
    assert losses(in_float32)[6] < losses(in_float32)[1] - 0.3
    assert losses(whole) == pytest.approx(losses(in_float32), abs=0.03), "more than the activations' rounding"

    middle = whole.paths.checkpoints / "checkpoint-3"
    state = state_of(middle)
    assert (state["remainder"].dtype, state["exp_avg"].dtype) == (torch.int16, torch.float32)
    assert state["remainder"].any(), "the masters are no more than their bf16 weights"
    resumed = trained(again, prepared, middle)
    assert resumed.keys() == delivered.keys()
    assert all(torch.equal(resumed[name], delivered[name]) for name in resumed)
    last, its_last = (state_of(run.paths.checkpoints / "checkpoint-6") for run in (again, whole))
    assert all(torch.equal(last[name], its_last[name]) for name in its_last)
    assert losses(again) == {step: loss for step, loss in losses(whole).items() if step > 3}
