"""Export and chat files: they change the job that trains what they name, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_operator.cli.convert.convert import Converted, convert
from finetune_operator.cli.convert.options import Options
from llama_factory import LACKING, delivery_file, spec_of, training_file


def with_delivery(tmp_path: Path, training: dict[str, Any] | None = None, **keys: Any) -> Converted:
    """A training file and an export (with export_dir) or chat file of one call."""
    files = [training_file(tmp_path, **(training or {})), delivery_file(tmp_path, "deliver.yaml", **keys)]
    return convert(files, Options())


EXPORTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"enabled": True, "dtype": "Auto", "maxShardSize": "5GB"}),
    ({"export_size": 2}, {"enabled": True, "dtype": "Auto", "maxShardSize": "2GB"}),
    ({"infer_dtype": "bfloat16"}, {"enabled": True, "dtype": "BF16", "maxShardSize": "5GB"}),
    (
        {"export_hub_model_id": "me/tuned", "hf_hub_token": "hf_secret"},
        {
            "enabled": True,
            "dtype": "Auto",
            "maxShardSize": "5GB",
            "push": {"target": "hf://me/tuned", "tokenSecret": {"name": "hf-hub-token"}},
        },
    ),
]


@pytest.mark.parametrize(("keys", "merge"), EXPORTS, ids=lambda value: str(value)[:40])
def test_an_export_becomes_the_jobs_merge(keys: dict[str, Any], merge: dict[str, Any], tmp_path: Path) -> None:
    spec = spec_of(with_delivery(tmp_path, export_dir="models/merged", **keys))
    assert spec["merge"] == merge
    assert "serving" not in spec


CHATS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({}, {}, {"mode": "Adapter", "gpus": 1}),
    ({}, {"infer_backend": "vllm"}, {"mode": "Adapter", "engine": "VLLM", "gpus": 1}),
    ({}, {"infer_backend": "huggingface"}, {"mode": "Adapter", "engine": "Transformers", "gpus": 1}),
    ({"use_cpu": True}, {}, {"mode": "Adapter", "gpus": 0}),
    ({"template": "qwen"}, {"template": "qwen"}, {"mode": "Adapter", "gpus": 1}),
    (
        {"finetuning_type": "full"},
        {"adapter_name_or_path": LACKING, "model_name_or_path": "saves/one", "finetuning_type": "full"},
        {"mode": "Merged", "gpus": 1},
    ),
]


@pytest.mark.parametrize(("training", "keys", "serving"), CHATS, ids=lambda value: str(value)[:40])
def test_a_chat_file_becomes_the_jobs_serving(
    training: dict[str, Any], keys: dict[str, Any], serving: dict[str, Any], tmp_path: Path
) -> None:
    assert spec_of(with_delivery(tmp_path, training, **keys))["serving"] == serving


def test_a_chat_with_the_exported_model_serves_it_merged(tmp_path: Path) -> None:
    files = [
        delivery_file(tmp_path, "chat.yaml", adapter_name_or_path=LACKING, model_name_or_path="models/merged"),
        delivery_file(tmp_path, "merge.yaml", export_dir="models/merged"),
        training_file(tmp_path),
    ]
    spec = spec_of(convert(files, Options()))
    assert spec["serving"] == {"mode": "Merged", "gpus": 1}
    assert spec["merge"]["enabled"] is True


def test_a_merge_stays_where_the_adapter_is_served_beside_it(tmp_path: Path) -> None:
    files = [training_file(tmp_path), delivery_file(tmp_path, "chat.yaml")]
    spec = spec_of(convert([*files, delivery_file(tmp_path, "merge.yaml", export_dir="models/merged")], Options()))
    assert (spec["merge"]["enabled"], spec["serving"]["mode"]) == (True, "Adapter")


def test_paths_that_mean_the_same_folder_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = with_delivery(tmp_path, adapter_name_or_path=f"{tmp_path}/saves/../saves/one/")
    assert spec_of(result)["serving"]["mode"] == "Adapter"


REFUSALS: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({}, {"adapter_name_or_path": "saves/two"}, "adapter_name_or_path", "expected the output_dir of a training file"),
    ({}, {"adapter_name_or_path": "saves/one/checkpoint-500"}, "adapter_name_or_path", "found saves/one/checkpoint-500"),
    ({}, {"adapter_name_or_path": "saves/one,saves/two"}, "adapter_name_or_path", "found 2 adapters, expected one"),
    ({}, {"adapter_name_or_path": LACKING}, "model_name_or_path", "expected the output_dir of a training file"),
    ({}, {"model_name_or_path": "Qwen/Qwen2-7B"}, "model_name_or_path", "trains hf://Qwen/Qwen2-7B-Instruct; name the same"),
    ({}, {"model_name_or_path": LACKING}, "model_name_or_path", "found nothing, expected the base model"),
    ({"template": "qwen"}, {"template": "yi"}, "template", "trains with qwen; name the same"),
    ({}, {"template": "yi"}, "template", "trains with the model's own; name the same"),
    ({"finetuning_type": "full"}, {}, "adapter_name_or_path", "trains a whole model; name it in model_name_or_path"),
    ({}, {"infer_backend": "sglang"}, "infer_backend", "expected vllm or huggingface"),
    ({}, {"infer_dtype": "float16"}, "infer_dtype", "served in its own format"),
    ({}, {"export_dir": "m", "quantization_bit": 4}, "quantization_bit", "merged into whole weights"),
    ({}, {"export_dir": "m", "learning_rate": 1e-4}, "learning_rate", "is for training only"),
    ({}, {"export_dir": "m", "export_legacy_format": True}, "export_legacy_format", "safetensors only"),
    ({}, {"export_dir": "m", "export_quantization_bit": 4}, "export_quantization_bit", "quantise the merged model"),
    ({}, {"export_dir": "m", "export_hub_model_id": "tuned"}, "export_hub_model_id", "org/name of a hub"),
    (
        {"finetuning_type": "full"},
        {"export_dir": "m", "adapter_name_or_path": LACKING, "model_name_or_path": "saves/one"},
        "export_dir",
        "expected an adapter to merge",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("training", "keys", "key", "words"), REFUSALS, ids=lambda value: str(value)[:40])
def test_an_export_or_chat_that_cannot_be_followed_is_refused_in_one_line(
    training: dict[str, Any], keys: dict[str, Any], key: str, words: str, tmp_path: Path
) -> None:
    (problem,) = with_delivery(tmp_path, training, **keys).problems
    assert problem.startswith(f"{tmp_path / 'deliver.yaml'}")
    assert f": {key}: " in problem
    assert words in problem


def test_two_files_that_train_into_one_folder_leave_open_which_is_meant(tmp_path: Path) -> None:
    files = [training_file(tmp_path, "a.yaml"), training_file(tmp_path, "b.yaml"), delivery_file(tmp_path, "chat.yaml")]
    (problem,) = convert(files, Options()).problems
    assert f"is the output_dir of {files[0]}, {files[1]}" in problem
    assert convert(files[:2], Options()).problems == []


@pytest.mark.parametrize("key", ["temperature", "vllm_maxlen", "cutoff_len", "lora_rank", "flash_attn"])
def test_what_a_chat_file_cannot_set_is_noted(key: str, tmp_path: Path) -> None:
    notes = with_delivery(tmp_path, **{key: 64}).notes
    assert any(f"{tmp_path / 'deliver.yaml'}: {key}: " in note for note in notes)


def test_a_file_that_goes_on_with_the_adapter_of_another_reads_it_from_that_jobs_volume(tmp_path: Path) -> None:
    first = training_file(tmp_path, "first.yaml")
    second = training_file(tmp_path, "second.yaml", adapter_name_or_path="saves/one", output_dir="saves/two")
    result = convert([first, second], Options())
    assert result.problems == []
    assert result.manifests[1]["spec"]["adapter"] == {"source": "pvc://first-data/adapter"}
    assert any("apply this job once that one is complete" in note for note in result.notes)


def test_a_chat_file_with_another_default_system_prompt_is_refused(tmp_path: Path) -> None:
    training = training_file(tmp_path, default_system="Be brief.")
    chats = [delivery_file(tmp_path, f"{name}.yaml", default_system=name) for name in ("Be brief.", "Be long.")]
    assert convert([training, chats[0]], Options()).problems == []
    (problem,) = convert([training, chats[1]], Options()).problems
    assert ": default_system: found another one than in" in problem
