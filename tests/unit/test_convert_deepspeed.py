"""The deepspeed key: LLaMA-Factory's examples become typed fields, other configurations are taken over whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.cli.convert.options import Options
from llama_factory import converted, field, spec_of

CPU = {"device": "cpu", "pin_memory": True}
BUCKETS = {
    "allgather_partitions": True,
    "allgather_bucket_size": 5e8,
    "overlap_comm": False,
    "reduce_scatter": True,
    "reduce_bucket_size": 5e8,
    "contiguous_gradients": True,
    "round_robin_gradients": True,
}
STAGE_3 = {
    "overlap_comm": False,
    "contiguous_gradients": True,
    "sub_group_size": 1e9,
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto",
    "stage3_max_live_parameters": 1e9,
    "stage3_max_reuse_distance": 1e9,
    "stage3_gather_16bit_weights_on_model_save": True,
}


def example(**zero: Any) -> dict[str, Any]:
    """A configuration as LLaMA-Factory ships them."""
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "fp16": {
            "enabled": "auto",
            "loss_scale": 0,
            "loss_scale_window": 1000,
            "initial_scale_power": 16,
            "hysteresis": 2,
            "min_loss_scale": 1,
        },
        "bf16": {"enabled": "auto"},
        "zero_optimization": zero,
        "monitor_config": {"enabled": True, "tag": "DeepSpeedMonitor", "csv_monitor": {"enabled": False}},
    }


EXAMPLES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("ds_z0_config.json", example(stage=0, **BUCKETS), {"stage": 0}),
    ("ds_z2_config.json", example(stage=2, **BUCKETS), {"stage": 2}),
    (
        "ds_z2_offload_config.json",
        example(stage=2, offload_optimizer=CPU, **BUCKETS),
        {"stage": 2, "offloadOptimizer": "CPU"},
    ),
    ("ds_z3_config.json", example(stage=3, **STAGE_3), {"stage": 3}),
    (
        "ds_z3_offload_config.json",
        example(stage=3, offload_optimizer=CPU, offload_param=CPU, **STAGE_3),
        {"stage": 3, "offloadOptimizer": "CPU", "offloadParameters": "CPU"},
    ),
]


@pytest.mark.parametrize(("name", "config", "expected"), EXAMPLES, ids=lambda value: str(value)[:30])
def test_an_example_becomes_typed_fields_by_its_content(
    name: str, config: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(config))
    assert spec_of(converted(tmp_path, deepspeed="mine.json"))["deepspeed"] == expected


@pytest.mark.parametrize(("name", "config", "expected"), EXAMPLES, ids=lambda value: str(value)[:30])
def test_an_example_that_is_not_here_is_known_by_its_name(
    name: str, config: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    result = converted(tmp_path, deepspeed=f"examples/deepspeed/{name}")
    assert spec_of(result)["deepspeed"] == expected
    assert any(f"{name} is not here; taken for LLaMA-Factory's example" in note for note in result.notes)


def test_a_configuration_of_the_users_own_is_taken_over_whole(tmp_path: Path) -> None:
    config = example(stage=2, offload_optimizer=CPU, **{**BUCKETS, "reduce_bucket_size": 1e8})
    result = converted(tmp_path, deepspeed=config)
    fields = spec_of(result)["deepspeed"]
    assert json.loads(fields.pop("config")) == config
    assert fields == {"stage": 2, "offloadOptimizer": "CPU"}


def test_a_path_counts_from_the_working_directory_before_the_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "work"
    here.mkdir()
    (here / "ds.json").write_text(json.dumps(example(stage=1)))
    (tmp_path / "ds.json").write_text(json.dumps(example(stage=2)))
    monkeypatch.chdir(here)
    assert field(spec_of(converted(tmp_path, deepspeed="ds.json")), "deepspeed.stage") == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("absent.json", "found absent.json, which is neither in"),
        ("{broken", "which is not JSON at line 1"),
        (3, "found 3, expected a path or a configuration"),
        ({"bf16": {"enabled": "auto"}}, "zero_optimization.stage: found null, expected 0, 1, 2 or 3"),
        (example(stage=4), "zero_optimization.stage: found 4"),
        ({**example(stage=2), "train_batch_size": 16}, 'train_batch_size: found 16, expected "auto"'),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_configuration_that_cannot_be_followed_is_refused(value: Any, words: str, tmp_path: Path) -> None:
    (problem,) = converted(tmp_path, deepspeed=value).problems
    assert problem.startswith(f"{tmp_path / 'sft.yaml'}:7: deepspeed: ")
    assert words in problem


@pytest.mark.parametrize(("gpus", "is_noted"), [(None, True), (8, False)])
def test_sharding_over_one_gpu_is_noted(gpus: int | None, is_noted: bool, tmp_path: Path) -> None:
    notes = converted(tmp_path, Options(gpus=gpus), deepspeed=example(stage=3)).notes
    assert any("one GPU is asked for" in note for note in notes) is is_noted
