"""Which field each key becomes, and LLaMA-Factory's defaults where the file is silent."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.base import DECIMAL_PATTERN
from finetune_operator.api.job import FineTuneJob
from finetune_operator.cli.convert.names import OPTIMIZERS, SCHEDULERS, decimal, job_name
from finetune_operator.cli.convert.options import Options
from llama_factory import LACKING, converted, field, spec_of, write_datasets

POLYNOMIAL = {"lr_scheduler_type": "polynomial"}
MIN_LR = {"lr_scheduler_type": "cosine_with_min_lr"}
EVALUATED = {"val_size": 0.1, "eval_strategy": "steps"}


def test_what_llama_factory_does_by_default_is_written_out(tmp_path: Path) -> None:
    spec = spec_of(converted(tmp_path, finetuning_type=LACKING, stage=LACKING))
    assert spec["method"] == "LoRA"
    assert spec["lora"] == {"rank": 8, "alpha": 16, "dropout": "0", "targetModules": ["all"]}
    assert spec["tokenization"] == {"cutoffLen": 2048, "packing": "None", "compatibility": "LLaMAFactory"}
    assert spec["training"] == {
        "epochs": 3,
        "perDeviceBatchSize": 8,
        "gradientAccumulationSteps": 1,
        "learningRate": "5e-5",
        "scheduler": "Linear",
        "optimizer": "AdamW",
        "weightDecay": "0",
        "maxGradNorm": "1",
        "precision": "FP32",
        "seed": 42,
        "gradientCheckpointing": "Enabled",
    }
    assert (spec["logging"], spec["checkpoints"], spec["resources"]) == (
        {"steps": 500},
        {"steps": 500},
        {"gpusPerNode": 1},
    )
    assert not {"evaluation", "merge", "serving", "tracking", "deepspeed", "quantization"} & spec.keys()


CASES: list[tuple[dict[str, Any], str, Any]] = [
    ({"model_revision": "v1.5"}, "model.revision", "v1.5"),
    ({"model_revision": "main"}, "model.revision", None),
    ({"hf_hub_token": "hf_secret"}, "model.tokenSecret.name", "hf-hub-token"),
    ({"finetuning_type": "full"}, "method", "Full"),
    ({"finetuning_type": "full"}, "lora", None),
    ({"quantization_bit": 4}, "method", "QLoRA"),
    ({"quantization_bit": 4}, "quantization", {"bits": 4, "type": "NF4", "doubleQuantization": True}),
    ({"quantization_bit": 4, "quantization_type": "fp4"}, "quantization.type", "FP4"),
    ({"quantization_bit": 4, "double_quantization": False}, "quantization.doubleQuantization", False),
    ({"quantization_bit": 8}, "quantization", {"bits": 8}),
    ({"lora_rank": 64}, "lora.rank", 64),
    ({"lora_rank": 64}, "lora.alpha", 128),
    ({"lora_rank": 64, "lora_alpha": 16}, "lora.alpha", 16),
    ({"lora_alpha": 0}, "lora.alpha", 16),
    ({"lora_alpha": None}, "lora.alpha", 16),
    ({"lora_dropout": 0.05}, "lora.dropout", "0.05"),
    ({"lora_target": "q_proj, v_proj"}, "lora.targetModules", ["q_proj", "v_proj"]),
    ({"lora_target": ["q_proj", "v_proj"]}, "lora.targetModules", ["q_proj", "v_proj"]),
    ({"lora_target": "all,lm_head"}, "lora.targetModules", ["all"]),
    ({"additional_target": "embed_tokens,lm_head"}, "lora.modulesToSave", ["embed_tokens", "lm_head"]),
    ({"use_rslora": True}, "lora.rsLoRA", True),
    ({"use_dora": True}, "lora.doRA", True),
    ({"template": "llama3"}, "tokenization.template", "llama3"),
    ({"cutoff_len": 1024}, "tokenization.cutoffLen", 1024),
    ({"packing": True}, "tokenization.packing", "Plain"),
    ({"neat_packing": True}, "tokenization.packing", "Segmented"),
    ({"packing": False, "neat_packing": True}, "tokenization.packing", "Segmented"),
    ({"packing": None}, "tokenization.packing", "None"),
    ({"train_on_prompt": True}, "tokenization.trainOnPrompt", True),
    ({"mask_history": True}, "tokenization.maskHistory", True),
    ({"max_samples": 1000}, "datasets.0.maxSamples", 1000),
    ({"disable_shuffling": True}, "training.shuffle", False),
    ({"num_train_epochs": 1.0}, "training.epochs", 1),
    ({"num_train_epochs": 0.5}, "training.epochs", "0.5"),
    ({"max_steps": 100}, "training.maxSteps", 100),
    ({"max_steps": 100, "num_train_epochs": 2}, "training.epochs", None),
    ({"max_steps": -1}, "training.epochs", 3),
    ({"per_device_train_batch_size": 2}, "training.perDeviceBatchSize", 2),
    ({"gradient_accumulation_steps": 16}, "training.gradientAccumulationSteps", 16),
    ({"learning_rate": 1e-4}, "training.learningRate", "1e-4"),
    ({"learning_rate": 0.00015}, "training.learningRate", "1.5e-4"),
    ({"warmup_ratio": 0.03}, "training.warmupRatio", "0.03"),
    ({"warmup_ratio": 0.0}, "training.warmupRatio", None),
    ({"warmup_steps": 20}, "training.warmupSteps", 20),
    ({"warmup_steps": 0.1}, "training.warmupRatio", "0.1"),
    ({"warmup_ratio": 0.1, "warmup_steps": 20}, "training.warmupRatio", "0.1"),
    ({"warmup_ratio": 0.1, "warmup_steps": 20}, "training.warmupSteps", None),
    ({"weight_decay": 0.01}, "training.weightDecay", "0.01"),
    ({"max_grad_norm": 0.3}, "training.maxGradNorm", "0.3"),
    ({"bf16": True}, "training.precision", "BF16"),
    ({"fp16": True}, "training.precision", "FP16"),
    ({"seed": 7}, "training.seed", 7),
    ({"disable_gradient_checkpointing": True}, "training.gradientCheckpointing", "Disabled"),
    ({"disable_gradient_checkpointing": True, "gradient_checkpointing": True}, "training.gradientCheckpointing", "Enabled"),
    ({"gradient_checkpointing": False}, "training.gradientCheckpointing", "Enabled"),
    ({**EVALUATED, "early_stopping_steps": 3}, "training.earlyStoppingPatience", 3),
    ({**MIN_LR, "lr_scheduler_kwargs": {"min_lr_rate": 0.05}}, "training.scheduler", "CosineWithMinLR"),
    ({**MIN_LR, "lr_scheduler_kwargs": {"min_lr_rate": 0.05}}, "training.schedulerOptions", {"minLearningRateRatio": "0.05"}),
    ({**MIN_LR, "lr_scheduler_kwargs": {"min_lr": 1e-6}}, "training.schedulerOptions", {"minLearningRate": "1e-6"}),
    ({**MIN_LR, "lr_scheduler_kwargs": '{"min_lr": 1e-6}'}, "training.schedulerOptions", {"minLearningRate": "1e-6"}),
    ({"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 3}}, "training.schedulerOptions", {"cycles": 3}),
    ({**POLYNOMIAL, "lr_scheduler_kwargs": {"lr_end": 0, "power": 2}}, "training.schedulerOptions", {"minLearningRate": "0", "power": "2"}),
    ({"adam_beta2": 0.95}, "training.adam", {"beta2": "0.95"}),
    ({"adam_beta1": 0.8, "adam_epsilon": 1e-6}, "training.adam", {"beta1": "0.8", "epsilon": "1e-6"}),
    ({"adam_beta2": 0.95, "optim": "sgd"}, "training.adam", None),
    ({"neftune_noise_alpha": 5}, "training.neftuneNoiseAlpha", "5"),
    ({"neftune_noise_alpha": 0}, "training.neftuneNoiseAlpha", None),
    ({"label_smoothing_factor": 0.1}, "training.labelSmoothing", "0.1"),
    ({"loraplus_lr_ratio": 16.0}, "training.loraPlusRatio", "16"),
    ({"data_seed": 0}, "training.dataSeed", 0),
    ({"group_by_length": True}, "training.groupByLength", True),
    ({"train_sampling_strategy": "group_by_length"}, "training.groupByLength", True),
    ({"train_sampling_strategy": "sequential"}, "training.shuffle", False),
    ({"group_by_length": True, "disable_shuffling": True}, "training.groupByLength", None),
    ({"default_system": "Be brief."}, "tokenization.defaultSystem", "Be brief."),
    ({"adapter_name_or_path": "/saves/old"}, "adapter", {"source": "file:///saves/old"}),
    ({"adapter_name_or_path": "org/adapter"}, "adapter.source", "hf://org/adapter"),
    ({"adapter_name_or_path": "org/adapter", "lora_rank": 64}, "lora", None),
    ({"adapter_name_or_path": "org/adapter", "hf_hub_token": "hf_secret"}, "adapter.tokenSecret.name", "hf-hub-token"),
    ({**EVALUATED, "eval_steps": 50}, "evaluation.steps", 50),
    ({**EVALUATED, "logging_steps": 10}, "evaluation.steps", 10),
    ({**EVALUATED, "per_device_eval_batch_size": 2}, "evaluation.perDeviceBatchSize", 2),
    (EVALUATED, "evaluation.perDeviceBatchSize", 8),
    ({**EVALUATED, "val_size": 100}, "evaluation.rows", 100),
    ({**EVALUATED, "val_size": 100}, "evaluation.fraction", None),
    ({"val_size": 0.1, "do_eval": True}, "evaluation.interval", "End"),
    ({"val_size": 0.1}, "evaluation", {"fraction": "0.1", "interval": "End", "perDeviceBatchSize": 8}),
    ({"val_size": 0.1, "eval_strategy": "epoch"}, "evaluation.interval", "Epoch"),
    ({"val_size": 0.1, "eval_strategy": "epoch"}, "evaluation.steps", None),
    ({**EVALUATED, "load_best_model_at_end": True, "eval_steps": 100}, "evaluation.loadBest", True),
    ({**EVALUATED, "load_best_model_at_end": False}, "evaluation.loadBest", None),
    ({"val_size": 0.0}, "evaluation", None),
    ({"eval_dataset": "rows", "eval_strategy": "steps"}, "evaluation.dataset.format", "Alpaca"),
    ({"eval_dataset": "rows"}, "evaluation", None),
    ({"logging_steps": 10}, "logging.steps", 10),
    ({"save_steps": 100}, "checkpoints.steps", 100),
    ({"save_steps": 100.0}, "checkpoints.steps", 100),
    ({"save_total_limit": 3}, "checkpoints.limit", 3),
    ({"save_total_limit": 0}, "checkpoints.limit", None),
    ({"save_strategy": "epoch"}, "checkpoints", {"interval": "Epoch"}),
    ({"save_strategy": "epoch", "save_total_limit": 1}, "checkpoints", {"interval": "Epoch", "limit": 1}),
    ({"save_strategy": "no"}, "checkpoints", {"steps": 500}),
    ({"use_cpu": True}, "resources.gpusPerNode", 0),
    ({"report_to": "none"}, "tracking", None),
    ({"report_to": []}, "tracking", None),
    ({"report_to": "tensorboard"}, "tracking", {"tensorBoard": {"enabled": True}}),
    ({"report_to": ["wandb"]}, "tracking.wandb", {"project": "llamafactory", "apiKeySecret": {"name": "wandb-api-key"}}),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "path", "expected"), CASES, ids=lambda value: str(value))
def test_a_key_becomes_its_field(keys: dict[str, Any], path: str, expected: Any, tmp_path: Path) -> None:
    result = converted(tmp_path, **keys)
    assert field(spec_of(result), path) == expected
    FineTuneJob.from_manifest(result.manifests[0])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_keeps_its_name_in_the_projects_spelling(name: str, tmp_path: Path) -> None:
    options = {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}} if name == "cosine_with_min_lr" else {}
    scheduler = field(spec_of(converted(tmp_path, lr_scheduler_type=name, **options)), "training.scheduler")
    assert scheduler.lower() == name.replace("_", "")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_mapped(name: str, tmp_path: Path) -> None:
    assert field(spec_of(converted(tmp_path, optim=name)), "training.optimizer") == OPTIMIZERS[name].value


def test_a_bare_no_is_the_word_although_yaml_reads_false(tmp_path: Path) -> None:
    assert "evaluation" not in spec_of(converted(tmp_path, eval_strategy=False))


def test_mlflow_takes_its_address_from_the_environment(tmp_path: Path) -> None:
    options = Options(mlflow_uri="http://mlflow:5000", mlflow_experiment="chats")
    expected = {"trackingUri": "http://mlflow:5000", "experiment": "chats"}
    assert field(spec_of(converted(tmp_path, options, report_to="mlflow")), "tracking.mlflow") == expected


def test_gpus_and_nodes_come_from_the_command_line(tmp_path: Path) -> None:
    spec = spec_of(converted(tmp_path, Options(gpus=8, nodes=2)))
    assert spec["resources"] == {"nodes": 2, "gpusPerNode": 8}
    assert spec["storage"] == {"accessMode": "ReadWriteMany"}


def test_several_datasets_stay_in_their_order(tmp_path: Path) -> None:
    write_datasets(tmp_path, more={"hf_hub_url": "org/more"})
    datasets = spec_of(converted(tmp_path, dataset="more, rows"))["datasets"]
    assert [dataset["source"].rpartition("/")[2] for dataset in datasets] == ["more", "rows.json"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (1.0, "1"), (0.1, "0.1"), (1e-4, "1e-4"), (5e-05, "5e-5"), (0.00025, "2.5e-4"), (0.001, "0.001"), (3.5, "3.5"),
     (2e7, "2e7")],
)  # fmt: skip
def test_a_number_is_written_in_its_shortest_form(number: float, text: str) -> None:
    assert decimal(number) == text


def test_any_number_reads_back_as_the_same_float() -> None:
    chance = random.Random(0)
    for _ in range(2000):
        number = chance.random() * 10 ** chance.randint(-12, 8)
        assert re.fullmatch(DECIMAL_PATTERN, decimal(number))
        assert float(decimal(number)) == number


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("configs/Qwen2_7B.LoRA.yaml", "qwen2-7b-lora"),
        ("7b-lora.yaml", "job-7b-lora"),
        ("__x__.yml", "x"),
        ("训练.yaml", "job"),
        ("-", "job"),
        ("a" * 40 + ".yaml", "a" * 40),
        ("qwen2_7b_lora_seq_lr1e-3_batch8_cutoff1024_a.yaml", "qwen2-7b-lora-seq-lr1e-3-batch8-c-85a21a"),
    ],
)
def test_a_job_is_named_after_its_file(file: str, name: str) -> None:
    assert job_name(file) == name


def test_long_names_that_begin_alike_stay_apart() -> None:
    names = {job_name(f"{'experiment-' * 6}{number}.yaml") for number in range(100)}
    assert len(names) == 100
    assert max(len(name) for name in names) <= 40
