"""What is refused: LLaMA-Factory's own rules, and what a job cannot follow. One line each, all in one pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_operator.cli.convert.convert import convert
from finetune_operator.cli.convert.options import Options
from llama_factory import LACKING, converted, training_file, write_datasets

# keys of the file, key that the line names, and words that it has
REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    ({"stage": "dpo"}, "stage", "found dpo, expected sft; preference training is not there yet"),
    ({"stage": "pt"}, "stage", "training on plain text is not there yet"),
    ({"stage": "nope"}, "stage", "found nope, expected sft"),
    ({"do_train": False}, "do_train", "set do_train: true"),
    ({"do_train": LACKING}, "do_train", "set do_train: true"),
    ({"dataset": LACKING}, "dataset", "found nothing"),
    ({"model_name_or_path": LACKING}, "model_name_or_path", "found nothing, expected the base model"),
    ({"model_name_or_path": "gpt2"}, "model_name_or_path", "found gpt2, which is no folder here; expected a path, or org/name"),
    ({"finetuning_type": "freeze"}, "finetuning_type", "found freeze, expected lora or full"),
    ({"finetuning_type": "oft"}, "finetuning_type", "found oft, expected lora or full"),
    ({"finetuning_type": "full", "use_dora": True}, "use_dora", "only for finetuning_type lora"),
    ({"finetuning_type": "full", "quantization_bit": 4}, "quantization_bit", "with finetuning_type full"),
    ({"quantization_bit": 3}, "quantization_bit", "found 3, expected 4 or 8"),
    ({"quantization_bit": 8, "deepspeed": {"zero_optimization": {"stage": 3}}}, "deepspeed", "ZeRO stage 3 takes 4-bit weights only"),
    ({"adapter_name_or_path": "saves/a,saves/b"}, "adapter_name_or_path", "found 2 adapters, expected one to go on with"),
    ({"adapter_name_or_path": "saves/a", "finetuning_type": "full"}, "adapter_name_or_path", "merge it into the base model first"),
    ({"adapter_name_or_path": "saves/a", "create_new_adapter": True}, "create_new_adapter", "a new adapter on top of the old one"),
    ({"adapter_name_or_path": "nowhere"}, "adapter_name_or_path", "no folder here; expected a path, or org/name"),
    ({"fp16": True, "bf16": True}, "fp16", "found true together with bf16"),
    ({"mask_history": True, "train_on_prompt": True}, "mask_history", "together with train_on_prompt"),
    ({"val_size": 0.1, "eval_dataset": "rows"}, "val_size", "together with eval_dataset"),
    ({"val_size": 1}, "val_size", "a share below 1, or a number of rows above 1"),
    ({"val_size": 2.5}, "val_size", "found 2.5"),
    ({"val_size": -1}, "val_size", "expected 0 or more"),
    ({"eval_strategy": "steps"}, "eval_strategy", "no rows to evaluate on; set val_size or eval_dataset"),
    ({"do_eval": True}, "do_eval", "no rows to evaluate on"),
    ({"load_best_model_at_end": True}, "load_best_model_at_end", "no rows to evaluate on; set val_size"),
    ({"eval_strategy": "steps", "val_size": 0.1, "eval_steps": 30, "save_steps": 100, "load_best_model_at_end": True},
     "load_best_model_at_end", "checkpoints.steps a multiple of evaluation.steps"),
    ({"eval_strategy": "epoch", "val_size": 0.1, "load_best_model_at_end": True}, "load_best_model_at_end", "interval Epoch"),
    ({"eval_strategy": "stepps", "val_size": 0.1}, "eval_strategy", "did you mean steps?"),
    ({"eval_strategy": "steps", "eval_steps": 0.1, "val_size": 0.1}, "eval_steps", "a share of all steps cannot be set"),
    ({"eval_strategy": "steps", "eval_dataset": ["rows", "rows"]}, "eval_dataset", "found several names, expected one"),
    ({"early_stopping_steps": 3}, "early_stopping_steps", "needs evaluation"),
    ({"save_steps": 0.2}, "save_steps", "expected a whole number of steps"),
    ({"save_steps": 0}, "save_steps", "expected 1 or more"),
    ({"save_strategy": "best"}, "save_strategy", "found best, expected steps"),
    ({"lr_scheduler_type": "greedy"}, "lr_scheduler_type", "expected one of linear, cosine"),
    ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type", "expected lr_scheduler_kwargs with min_lr or min_lr_rate"),
    ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1}}, "lr_scheduler_kwargs", "must be below learningRate"),
    ({"lr_scheduler_kwargs": {"num_cycles": 2}}, "lr_scheduler_kwargs", "found num_cycles: 2, expected none"),
    ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": "two"}}, "lr_scheduler_kwargs", "with a number for polynomial"),
    ({"lr_scheduler_kwargs": "much"}, "lr_scheduler_kwargs", "expected names and numbers"),
    ({"adam_beta2": 1}, "adam_beta2", "must be below 1"),
    ({"neftune_noise_alpha": -1}, "neftune_noise_alpha", "expected 0 or more"),
    ({"loraplus_lr_ratio": 16, "finetuning_type": "full"}, "loraplus_lr_ratio", "only for method LoRA or QLoRA"),
    ({"label_smoothing_factor": 1}, "label_smoothing_factor", "from 0 to below 1"),
    ({"train_sampling_strategy": "batch_rebalance"}, "train_sampling_strategy", "expected one of random"),
    ({"optim": "lion_8bit"}, "optim", "expected one of adamw_torch"),
    ({"warmup_ratio": 1.5}, "warmup_ratio", "use warmup_steps for steps"),
    ({"warmup_steps": 2.5}, "warmup_steps", "expected a whole number of steps"),
    ({"learning_rate": "1e-4"}, "learning_rate", 'found "1e-4", expected a number without quotes'),
    ({"learning_rate": -1e-4}, "learning_rate", "expected 0 or more"),
    ({"learning_rate": 0}, "learning_rate", "must be above 0"),
    ({"learning_rate": None}, "learning_rate", "remove the line for the default, 5e-05"),
    ({"lora_rank": "8"}, "lora_rank", 'found "8", expected a whole number without quotes'),
    ({"lora_rank": 0}, "lora_rank", "expected 1 or more"),
    ({"lora_dropout": 1}, "lora_dropout", "must be below 1"),
    ({"lora_target": "q proj"}, "lora_target", 'found "q proj"'),
    ({"cutoff_len": 4}, "cutoff_len", "found 4, expected 16 or more"),
    ({"bf16": 1}, "bf16", "found 1, expected true or false"),
    ({"output_dir": "${base}/out"}, "output_dir", "LLaMA-Factory does not fill in ${…}"),
    ({"infer_backend": "vllm"}, "infer_backend", "write it into the chat file"),
    ({"report_to": "swanlab"}, "report_to", "expected of none, tensorboard, wandb, mlflow"),
    ({"report_to": "mlflow"}, "report_to", "set the variable MLFLOW_TRACKING_URI"),
    ({"dataset": "nope"}, "dataset", "found nope, expected one of"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "key", "words"), REFUSALS, ids=lambda value: str(value))
def test_a_file_that_cannot_be_followed_is_refused_in_one_line(
    keys: dict[str, Any], key: str, words: str, tmp_path: Path
) -> None:
    file = training_file(tmp_path, **keys)
    numbers = {
        line.partition(":")[0]: number for number, line in enumerate(Path(file).read_text().splitlines(), start=1)
    }
    place = f"{file}:{numbers[key]}" if key in numbers else file
    (problem,) = convert([file], Options()).problems
    assert problem.startswith(f"{place}: {key}: ")
    assert words in problem


def test_everything_wrong_in_every_file_is_told_in_one_pass_by_line(tmp_path: Path) -> None:
    first = training_file(tmp_path, "a.yaml", frobnicate=1, lora_rank="8", use_galore=True)
    second = training_file(tmp_path, "b.yaml", stage="dpo", dataset="nope")
    result = convert([first, second], Options())
    assert [problem.split(": ")[:2] for problem in result.problems] == [
        [f"{first}:7", "frobnicate"],
        [f"{first}:8", "lora_rank"],
        [f"{first}:9", "use_galore"],
        [f"{second}:2", "stage"],
        [f"{second}:5", "dataset"],
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [\n", ":2: not YAML"),
        ("- a\n", "found a list, expected keys and values"),
        ("", "found nothing, expected keys and values"),
        ("a: 1\n---\nb: 2\n", "not YAML: but found another document"),
        ("lora_rank: 8\nbf16: true\nlora_rank: 16\n", ":3: not YAML: the key lora_rank stands twice"),
    ],
)
def test_a_file_that_is_no_flat_yaml_is_refused(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "sft.yaml"
    file.write_text(text)
    (problem,) = convert([str(file)], Options()).problems
    assert problem.startswith(str(file))
    assert words in problem


def test_a_file_that_is_missing_or_no_text_does_not_hide_the_others(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    wrong = training_file(tmp_path, stage="dpo")
    problems = convert([str(tmp_path / "absent.yaml"), str(binary), wrong], Options()).problems
    assert ["No such file" in problems[0], "not UTF-8" in problems[1], "stage" in problems[2]] == [True, True, True]


def test_numbers_are_read_as_omegaconf_reads_them(tmp_path: Path) -> None:
    write_datasets(tmp_path)
    file = Path(training_file(tmp_path))
    file.write_text(file.read_text() + "learning_rate: 1e-4\nweight_decay: 1.0e-2\nmax_grad_norm: 1\n")
    (manifest,) = convert([str(file)], Options()).manifests
    training = manifest["spec"]["training"]
    assert [training[name] for name in ("learningRate", "weightDecay", "maxGradNorm")] == ["1e-4", "0.01", "1"]


def test_two_files_that_make_one_name_are_refused(tmp_path: Path) -> None:
    files = [training_file(tmp_path, "a_b.yaml"), training_file(tmp_path, "a-b.yaml")]
    (problem,) = convert(files, Options()).problems
    assert problem.startswith(", ".join(files))
    assert "the job a-b" in problem


def test_what_stands_beside_a_stronger_key_is_noted(tmp_path: Path) -> None:
    notes = converted(tmp_path, max_steps=10, num_train_epochs=3, warmup_ratio=0.1, warmup_steps=5).notes
    assert [note for note in notes if "stands beside it and wins" in note] != []
    assert {note.split(": ")[1] for note in notes} == {"num_train_epochs", "warmup_steps", "output_dir"}
