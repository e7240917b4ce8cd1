"""The job's fields become the Trainer's arguments, and a DeepSpeed configuration that agrees with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.device import CPU, DEVICE_VARIABLE
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_operator.api.training import Precision
from finetune_trainer.train.arguments import training_arguments
from finetune_trainer.train.deepspeed import deepspeed_config
from finetune_trainer.train.device import Device, choose_device
from trainer_runs import make_run


def run(tmp_path: Path, **spec: Any) -> RunConfig:
    return make_run(tmp_path / "job", tmp_path, tmp_path / "rows.jsonl", **spec)


def arguments(tmp_path: Path, **spec: Any) -> Any:
    return training_arguments(run(tmp_path, **spec), Device(is_gpu=False), tmp_path)


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"epochs": "0.5"}, {"num_train_epochs": 0.5, "max_steps": -1}),
        ({"epochs": 2}, {"num_train_epochs": 2.0}),
        ({}, {"num_train_epochs": 3.0, "max_steps": -1, "lr_scheduler_type": "cosine", "max_grad_norm": 1.0}),
        ({"maxSteps": 7}, {"max_steps": 7}),
        ({"learningRate": "1e-4", "weightDecay": "0.1"}, {"learning_rate": 1e-4, "weight_decay": 0.1}),
        ({"warmupSteps": 1}, {"warmup_steps": 1}),
        ({"shuffle": False}, {"train_sampling_strategy": "sequential"}),
        ({}, {"train_sampling_strategy": "random"}),
        (
            {"optimizer": "Adafactor", "scheduler": "ConstantWithWarmup"},
            {"optim": "adafactor", "lr_scheduler_type": "constant_with_warmup"},
        ),
        ({"precision": "BF16"}, {"bf16": False, "fp16": False}),
        ({}, {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "neftune_noise_alpha": None}),
        ({"adam": {"beta2": "0.95"}}, {"adam_beta1": 0.9, "adam_beta2": 0.95}),
        (
            {"neftuneNoiseAlpha": "5", "labelSmoothing": "0.1"},
            {"neftune_noise_alpha": 5.0, "label_smoothing_factor": 0.1},
        ),
        ({"dataSeed": 7}, {"seed": 42, "data_seed": 7}),
        ({"groupByLength": True}, {"train_sampling_strategy": "group_by_length"}),
        ({"scheduler": "CosineWithMinLR"}, {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}}),
        (
            {"scheduler": "CosineWithMinLR", "schedulerOptions": {"minLearningRate": "1e-6"}},
            {"lr_scheduler_kwargs": {"min_lr": 1e-6}},
        ),
        (
            {"scheduler": "CosineWithRestarts", "schedulerOptions": {"cycles": 3}},
            {"lr_scheduler_kwargs": {"num_cycles": 3}},
        ),
        (
            {"scheduler": "Polynomial", "schedulerOptions": {"power": "2"}},
            {"lr_scheduler_kwargs": {"lr_end": 1e-7, "power": 2.0}},
        ),
        # The Trainer refuses a rate that begins below its end.
        ({"scheduler": "Polynomial", "learningRate": "1e-8"}, {"lr_scheduler_kwargs": {"lr_end": 0.0, "power": 1.0}}),
    ],
)
def test_hyper_parameters_reach_the_trainer(tmp_path: Path, training: dict[str, Any], expected: dict[str, Any]) -> None:
    found = arguments(tmp_path, training=training)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        ({"steps": 50}, {"eval_strategy": "steps", "eval_steps": 50}),
        ({"interval": "Epoch"}, {"eval_strategy": "epoch"}),
        ({"interval": "End"}, {"eval_strategy": "steps", "eval_steps": 1_000_000_000}),
    ],
)
def test_the_time_of_evaluations_reaches_the_trainer(
    tmp_path: Path, evaluation: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = arguments(tmp_path, evaluation={"rows": 1, **evaluation})
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(("interval", "strategy"), [("Steps", "steps"), ("Epoch", "epoch")])
def test_the_time_of_checkpoints_reaches_the_trainer(tmp_path: Path, interval: str, strategy: str) -> None:
    assert arguments(tmp_path, checkpoints={"interval": interval}).save_strategy == strategy


@pytest.mark.parametrize(("ratio", "steps"), [("0.1", 3), ("0", 0), ("1", 24), ("0.5", 12)])
def test_a_share_of_warm_up_steps_is_rounded_up(tmp_path: Path, ratio: str, steps: int) -> None:
    assert arguments(tmp_path, training={"warmupRatio": ratio}).get_warmup_steps(24) == steps


def test_on_a_cpu_nothing_is_cast_whatever_the_precision(tmp_path: Path) -> None:
    assert choose_device(run(tmp_path, training={"precision": "FP16"}).spec) == Device(
        is_gpu=False, autocast=Precision.FP32
    )


def test_a_gpu_that_is_not_there_is_refused_by_field(tmp_path: Path) -> None:
    with pytest.raises(StageFailure, match=r"resources.gpusPerNode: 1 asked for, but no GPU is visible") as caught:
        choose_device(run(tmp_path, resources={"gpusPerNode": 1}).spec)
    assert caught.value.code is ExitCode.INVALID_SPEC


def test_a_machine_that_stands_in_for_gpus_computes_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICE_VARIABLE, CPU)
    assert not choose_device(run(tmp_path, resources={"gpusPerNode": 2}).spec).is_gpu


def test_deepspeeds_fields_fill_its_configuration(tmp_path: Path) -> None:
    config = deepspeed_config(run(tmp_path, deepspeed={"stage": 3, "offloadOptimizer": "CPU"}).spec)
    assert config is not None
    zero = config["zero_optimization"]
    assert (zero["stage"], zero["offload_optimizer"]["device"]) == (3, "cpu")
    assert zero["stage3_gather_16bit_weights_on_model_save"] is True
    assert config["train_micro_batch_size_per_gpu"] == "auto"
    assert deepspeed_config(run(tmp_path).spec) is None


def test_a_raw_configuration_keeps_what_the_job_says_nothing_about(tmp_path: Path) -> None:
    raw = {"zero_optimization": {"stage": 2, "reduce_bucket_size": 1000}, "wall_clock_breakdown": True}
    config = deepspeed_config(run(tmp_path, deepspeed={"stage": 2, "config": json.dumps(raw)}).spec)
    assert config is not None
    assert config["wall_clock_breakdown"] is True
    assert config["zero_optimization"]["reduce_bucket_size"] == 1000


def test_a_raw_configuration_that_contradicts_the_job_is_refused_with_every_field(tmp_path: Path) -> None:
    raw = {"zero_optimization": {"stage": 3}, "gradient_clipping": 5, "train_batch_size": "auto"}
    with pytest.raises(StageFailure) as caught:
        deepspeed_config(run(tmp_path, deepspeed={"stage": 2, "config": json.dumps(raw)}).spec)
    assert "deepspeed.config.zero_optimization.stage: found 3, and spec.deepspeed.stage says 2" in caught.value.message
    assert "deepspeed.config.gradient_clipping: found 5, and spec.training.maxGradNorm says 1.0" in caught.value.message
    assert "train_batch_size" not in caught.value.message
