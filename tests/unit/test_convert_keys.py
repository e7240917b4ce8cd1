"""Every key that LLaMA-Factory's users write is mapped, noted or refused by name, and the page for them says which."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.crd import custom_resource_definition
from finetune_operator.cli.convert.convert import convert
from finetune_operator.cli.convert.keys import DEPENDENT, KNOWN, MAPPED, NOTED, REFUSED, RENAMED, TRAIN
from finetune_operator.cli.convert.options import Options
from finetune_operator.cli.convert.page import with_tables
from llama_factory import converted, training_file

PAGE = Path(__file__).parents[2] / "docs" / "from-llama-factory.md"

# The keys of the tutorials and examples, and those that stand in published configurations most, by argument class.
ESSENTIAL_AND_COMMON = {
    "model": (
        "model_name_or_path adapter_name_or_path trust_remote_code quantization_bit quantization_method quantization_type "
        "double_quantization quantization_device_map flash_attn export_dir export_size export_device export_legacy_format "
        "infer_backend infer_dtype cache_dir adapter_folder use_fast_tokenizer resize_vocab split_special_tokens add_tokens "
        "add_special_tokens model_revision low_cpu_mem_usage rope_scaling use_unsloth use_unsloth_gc enable_liger_kernel "
        "disable_gradient_checkpointing use_reentrant_gc upcast_layernorm upcast_lmhead_output hf_hub_token ms_hub_token "
        "vllm_maxlen vllm_gpu_util vllm_enforce_eager vllm_max_lora_rank vllm_config"
    ),
    "data": (
        "template dataset eval_dataset dataset_dir cutoff_len max_samples val_size overwrite_cache preprocessing_num_workers "
        "packing neat_packing train_on_prompt mask_history streaming buffer_size mix_strategy interleave_probs "
        "eval_on_each_dataset preprocessing_batch_size ignore_pad_token_for_loss tokenized_path default_system "
        "enable_thinking preserve_thinking tool_format data_shared_file_system media_dir"
    ),
    "finetuning": (
        "stage finetuning_type lora_rank lora_alpha lora_dropout lora_target plot_loss pure_bf16 additional_target use_rslora "
        "use_dora loraplus_lr_ratio loraplus_lr_embedding pissa_init pissa_iter pissa_convert create_new_adapter "
        "freeze_trainable_layers freeze_trainable_modules freeze_extra_modules compute_accuracy disable_shuffling "
        "early_stopping_steps include_effective_tokens_per_second pref_beta pref_loss pref_ftx simpo_gamma ref_model "
        "ref_model_adapters ref_model_quantization_bit reward_model reward_model_adapters reward_model_quantization_bit "
        "reward_model_type"
    ),
    "training": (
        "do_train do_eval do_predict output_dir per_device_train_batch_size per_device_eval_batch_size "
        "gradient_accumulation_steps learning_rate num_train_epochs max_steps lr_scheduler_type warmup_ratio warmup_steps bf16 "
        "fp16 logging_steps save_steps save_strategy save_total_limit save_only_model eval_strategy eval_steps deepspeed "
        "ddp_timeout resume_from_checkpoint report_to seed optim weight_decay max_grad_norm neftune_noise_alpha "
        "dataloader_num_workers predict_with_generate load_best_model_at_end include_num_input_tokens_seen fp8 fp8_backend "
        "fp8_enable_fsdp_float8_all_gather ray_num_workers ray_init_kwargs enable_torch_profiler profiler_output_dir"
    ),
    "generating": (
        "do_sample temperature top_p top_k num_beams max_length max_new_tokens repetition_penalty length_penalty "
        "skip_special_tokens"
    ),
}


@pytest.mark.parametrize(
    "key",
    [pytest.param(key, id=f"{group}-{key}") for group, keys in ESSENTIAL_AND_COMMON.items() for key in keys.split()],
)
def test_a_key_that_users_write_is_known(key: str) -> None:
    assert key in KNOWN


def test_each_key_stands_in_one_table_only() -> None:
    assert [key for key, count in Counter(KNOWN).items() if count > 1] == []
    assert set(RENAMED).isdisjoint(KNOWN)
    assert set(RENAMED.values()) <= set(KNOWN)


def schema_has(path: str) -> bool:
    """Whether a path such as spec.datasets[].maxSamples names a field of the CRD."""
    node: Any = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in path.split("."):
        node = node["properties"].get(part.removesuffix("[]"), {})
        node = node.get("items", node) if part.endswith("[]") else node
    return bool(node)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        (key, mapped.field)
        for key, mapped in MAPPED.items()
        if mapped.field.startswith("spec.") and " " not in mapped.field
    ],
)
def test_a_key_is_mapped_to_a_field_that_exists(key: str, path: str) -> None:
    assert schema_has(path)


@pytest.mark.parametrize("key", [*NOTED, *DEPENDENT])
def test_a_key_without_a_meaning_is_noted_and_changes_nothing(key: str, tmp_path: Path) -> None:
    result, without = converted(tmp_path, **{key: 1}), converted(tmp_path)
    assert result.problems == []
    assert [note for note in result.notes if f": {key}: " in note] != []
    assert result.manifests == without.manifests


@pytest.mark.parametrize("key", REFUSED)
def test_a_key_that_a_job_cannot_follow_is_refused_with_its_line_and_what_to_use_instead(
    key: str, tmp_path: Path
) -> None:
    (problem,) = converted(tmp_path, **{key: "something"}).problems
    assert problem.startswith(f"{tmp_path / 'sft.yaml'}:7: {key}: found ")
    assert REFUSED[key].instead in problem


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, refused in REFUSED.items() for value in (*refused.harmless, None)]
)
def test_a_refused_key_that_asks_for_nothing_is_accepted(key: str, value: Any, tmp_path: Path) -> None:
    assert converted(tmp_path, **{key: value}).problems == []


@pytest.mark.parametrize("key", [key for key, mapped in MAPPED.items() if TRAIN in mapped.read_by])
def test_a_value_of_the_wrong_kind_is_told_with_its_line(key: str, tmp_path: Path) -> None:
    file = training_file(tmp_path, **{key: {"a": 1}})
    line = Path(file).read_text().splitlines().index(f'{key}: {{"a": 1}}') + 1
    problems = convert([file], Options()).problems
    assert any(problem.startswith(f"{file}:{line}: {key}: ") for problem in problems)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("learning_rat", "did you mean learning_rate?"),
        ("lora_ranks", "did you mean lora_rank?"),
        ("evaluation_strategy", "it is called eval_strategy now"),
        ("frobnicate", "which LLaMA-Factory does not have; remove it"),
    ],
)
def test_an_unknown_key_is_refused_with_a_hint(key: str, hint: str, tmp_path: Path) -> None:
    (problem,) = converted(tmp_path, **{key: 1}).problems
    assert problem.startswith(f"{tmp_path / 'sft.yaml'}:7: {key}: unknown key")
    assert hint in problem


def test_the_page_for_users_of_llama_factory_is_what_the_tables_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run `python -m finetune_operator.cli.convert.page docs/from-llama-factory.md`"


def test_the_page_names_every_key() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [key for key in KNOWN if f"`{key}`" not in page] == []
