"""A training with the fused kernels learns what one without them learns."""

from pathlib import Path

import pytest

from finetune_operator.api.result import read_results
from finetune_operator.api.run import RunConfig
from trainer_process import losses, run_stages, trainer_log
from trainer_runs import IDENTITY, IDENTITY_ROWS, identity_model, make_run

TRAINING = {"maxSteps": 6, "perDeviceBatchSize": 2, "gradientAccumulationSteps": 3, "learningRate": "2e-3"}


def test_the_losses_are_the_same_with_and_without_the_kernels(tmp_path: Path) -> None:
    model = identity_model(tmp_path / "model")
    plain, fused = (_trained(tmp_path, model, switch) for switch in ("Disabled", "Enabled"))
    assert losses(fused) == pytest.approx(losses(plain), abs=1e-5)
    assert _evaluations(fused) == pytest.approx(_evaluations(plain), abs=1e-4)


def test_a_base_in_float8_learns_the_same_within_a_hundredth(tmp_path: Path) -> None:
    model = identity_model(tmp_path / "model")
    exact, rounded = (_trained(tmp_path, model, "Enabled", precision=precision) for precision in ("BF16", "FP8Base"))
    assert losses(rounded) == pytest.approx(losses(exact), rel=0.01)
    assert losses(rounded) != losses(exact)
    # For the status; a job in 16 bits has nothing of the kind to tell.
    assert 0 < float(read_results(rounded.paths.result)["train"]["float8LossDifference"]) < 0.01
    assert "float8LossDifference" not in read_results(exact.paths.result)["train"]


def _evaluations(run: RunConfig) -> list[float]:
    return [line["eval_loss"] for line in trainer_log(run) if "eval_loss" in line]


def _trained(folder: Path, model: Path, switch: str, precision: str = "BF16") -> RunConfig:
    run = make_run(
        folder / f"{switch}-{precision}",
        model,
        IDENTITY,
        dataset=IDENTITY_ROWS,
        method="LoRA",
        tokenization={"cutoffLen": 128, "packing": "None"},
        training={**TRAINING, "fusedKernels": switch, "precision": precision},
        logging={"steps": 1},
        evaluation={"fraction": "0.1", "steps": 3},
    )
    assert run_stages(run, "prepare", "train").code == 0
    return run
