"""Methods, optimizers, schedules and the times of evaluations and checkpoints, each trained for real for a few steps."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_operator.api.run import RunConfig
from finetune_operator.api.training import Optimizer, Scheduler
from finetune_trainer.prepare.adapter_check import provide_adapter
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.store import Meta
from finetune_trainer.train.session import train_here
from trainer_process import losses, trainer_log
from trainer_runs import IDENTITY, IDENTITY_ROWS, identity_model, make_run

STEPS = {"maxSteps": 3, "perDeviceBatchSize": 4, "gradientAccumulationSteps": 1, "learningRate": "2e-3"}


def job(root: Path, model: Path, training: dict[str, Any] | None = None, **spec: Any) -> RunConfig:
    return make_run(
        root,
        model,
        IDENTITY,
        dataset=IDENTITY_ROWS,
        training={**STEPS, **(training or {})},
        logging={"steps": 1},
        **spec,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A job's folder with its tokens, for every job without an evaluation."""
    root = tmp_path_factory.mktemp("prepared") / "job"
    prepare(job(root, model))
    return root


def trained(run: RunConfig, prepared: Path | None = None) -> dict[str, Any]:
    """Train in this process and return the figures; tokens come from ``prepared``, or are made."""
    if prepared is None:
        prepare(run)
    else:
        shutil.copytree(prepared, run.paths.root, symlinks=True)
        provide_adapter(run)
    return dict(train_here(run, Meta.load(run.paths.data), "identity"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    name = "adapter_model.safetensors" if (folder / "adapter_config.json").exists() else "model.safetensors"
    return load_file(folder / name)


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_every_optimizer_learns(tmp_path: Path, model: Path, prepared: Path, optimizer: Optimizer) -> None:
    rate = "1e-1" if optimizer is Optimizer.SGD else "2e-3"
    run = job(tmp_path / "job", model, {"optimizer": optimizer.value, "learningRate": rate, "scheduler": "Constant"})
    trained(run, prepared)
    assert losses(run)[3] < losses(run)[1]


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_every_schedule_rises_to_the_learning_rate(
    tmp_path: Path, model: Path, prepared: Path, scheduler: Scheduler
) -> None:
    run = job(tmp_path / "job", model, {"scheduler": scheduler.value, "warmupSteps": 1})
    trained(run, prepared)
    rates = [line["lr"] for line in trainer_log(run) if "loss" in line]
    # Constant has no warm-up, in the Trainer as in papers.
    assert rates[0] == (2e-3 if scheduler is Scheduler.CONSTANT else 0)
    assert rates[1] == pytest.approx(2e-3)
    assert (rates[2] < rates[1]) == (scheduler not in (Scheduler.CONSTANT, Scheduler.CONSTANT_WITH_WARMUP))


@pytest.mark.parametrize(
    ("training", "spec"),
    [
        ({"neftuneNoiseAlpha": "5"}, {}),
        ({"labelSmoothing": "0.1"}, {}),
        ({"groupByLength": True}, {}),
        ({"dataSeed": 7}, {}),
        ({"loraPlusRatio": "4"}, {"method": "LoRA"}),
        ({}, {"method": "LoRA", "lora": {"doRA": True}}),
        ({}, {"method": "LoRA", "lora": {"rsLoRA": True, "alpha": 64}}),
        ({}, {"method": "LoRA", "lora": {"modulesToSave": ["embed_tokens"]}}),
    ],
    ids=str,
)
def test_a_setting_changes_what_is_learnt(
    tmp_path: Path, model: Path, prepared: Path, training: dict[str, Any], spec: dict[str, Any]
) -> None:
    method = spec.get("method", "Full")
    plain = job(tmp_path / "plain", model, method=method)
    changed = job(tmp_path / "changed", model, training, **spec)
    for run in (plain, changed):
        trained(run, prepared)
    assert losses(plain)[3] != losses(changed)[3]
    assert losses(changed)[3] < losses(changed)[1]


def test_epochs_end_with_an_evaluation_and_a_checkpoint(tmp_path: Path, model: Path) -> None:
    run = job(
        tmp_path / "job",
        model,
        {"maxSteps": None, "epochs": 2},
        evaluation={"fraction": "0.2", "interval": "Epoch"},
        checkpoints={"interval": "Epoch"},
    )
    figures = trained(run)
    steps = figures["steps"]
    evaluated = {line["current_steps"]: line["epoch"] for line in trainer_log(run) if "eval_loss" in line}
    assert evaluated == {steps // 2: 1.0, steps: 2.0}
    saved = sorted(int(path.name.removeprefix("checkpoint-")) for path in run.paths.checkpoints.glob("checkpoint-*"))
    assert saved == [steps // 2, steps]


def test_an_evaluation_at_the_end_is_the_only_one(tmp_path: Path, model: Path) -> None:
    run = job(tmp_path / "job", model, evaluation={"rows": 4, "interval": "End"})
    trained(run)
    assert [line["current_steps"] for line in trainer_log(run) if "eval_loss" in line] == [3]


@pytest.mark.parametrize(
    ("method", "rate"), [("Full", {"learningRate": "3e-1"}), ("LoRA", {"loraPlusRatio": "10000", "maxSteps": 5})]
)
def test_the_best_checkpoint_is_kept_beyond_the_limit_and_delivered(
    tmp_path: Path, model: Path, method: str, rate: dict[str, Any]
) -> None:
    run = job(
        tmp_path / "job",
        model,
        # So high a rate that the loss soon rises.
        {"maxSteps": 6, "scheduler": "Constant", **rate},
        method=method,
        evaluation={"rows": 8, "steps": 1, "loadBest": True},
        checkpoints={"steps": 1, "limit": 1},
    )
    trained(run)
    evaluated = {line["current_steps"]: line["eval_loss"] for line in trainer_log(run) if "eval_loss" in line}
    best = min(evaluated, key=evaluated.__getitem__)
    assert best < max(evaluated), "the last state is the best; the test shows nothing"
    kept = {path.name for path in run.paths.checkpoints.glob("checkpoint-*")}
    assert kept == {f"checkpoint-{best}", f"checkpoint-{max(evaluated)}"}
    delivered = run.paths.adapter if method == "LoRA" else run.paths.model
    assert equal(weights(delivered), weights(run.paths.checkpoints / f"checkpoint-{best}"))
    assert not equal(weights(delivered), weights(run.paths.checkpoints / f"checkpoint-{max(evaluated)}"))


def test_rows_by_length_come_in_the_same_order_after_a_restart(tmp_path: Path, model: Path, prepared: Path) -> None:
    settings = {"groupByLength": True, "maxSteps": 14}
    checkpoints = {"steps": 9, "limit": 5}
    whole = job(tmp_path / "whole", model, settings, checkpoints=checkpoints)
    trained(whole, prepared)
    again = job(tmp_path / "again", model, settings, checkpoints=checkpoints)
    shutil.copytree(prepared, again.paths.root, symlinks=True)
    # In the middle of the second epoch.
    shutil.copytree(whole.paths.checkpoints / "checkpoint-9", again.paths.checkpoints / "checkpoint-9")
    train_here(again, Meta.load(again.paths.data), "identity")
    assert equal(weights(whole.paths.model), weights(again.paths.model))
    assert {step: loss for step, loss in losses(whole).items() if step > 9} == losses(again)


@pytest.mark.parametrize("method", ["LoRA", "QLoRA"])
def test_an_adapter_is_trained_further_from_where_it_was(
    tmp_path: Path, model: Path, prepared: Path, method: str
) -> None:
    lora = {"rank": 4, "targetModules": ["q_proj", "v_proj"]}
    first = job(tmp_path / "first", model, {"maxSteps": 8, "learningRate": "2e-2"}, method="LoRA", lora=lora)
    trained(first, prepared)
    source = {"source": f"file://{first.paths.adapter}"}
    second = job(tmp_path / "second", model, {"learningRate": "2e-2"}, method=method, adapter=source)
    trained(second, prepared)
    assert losses(second)[1] < losses(first)[1] - 0.1, "it began with a new adapter"
    shape = json.loads((second.paths.adapter / "adapter_config.json").read_bytes())
    assert (shape["r"], sorted(shape["target_modules"])) == (4, ["q_proj", "v_proj"])
    assert not equal(weights(first.paths.adapter), weights(second.paths.adapter))
