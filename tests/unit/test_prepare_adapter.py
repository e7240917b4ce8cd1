"""The adapter that a job goes on with is checked against the base model and the job's fields before any GPU."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare.adapter_check import provide_adapter
from tiny_models import save_adapter, save_base
from trainer_runs import make_run


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_base(folder)
    return folder


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    save_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "v_proj"])
    return tmp_path / "adapter"


def job(tmp_path: Path, base: Path, adapter: Path, **spec: Any) -> RunConfig:
    source = {"source": f"file://{adapter}"}
    run = make_run(tmp_path / "job", base, tmp_path / "rows.jsonl", method="LoRA", adapter=source, **spec)
    run.paths.root.mkdir(parents=True)
    run.paths.base_model.symlink_to(base)
    return run


def refusal(run: RunConfig) -> str:
    with pytest.raises(StageFailure) as caught:
        provide_adapter(run)
    assert caught.value.code is ExitCode.MODEL_UNUSABLE
    return caught.value.message


def change(adapter: Path, **settings: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **settings}))


def test_an_adapter_that_fits_is_put_where_training_looks(tmp_path: Path, base: Path, adapter: Path) -> None:
    run = job(tmp_path, base, adapter)
    provide_adapter(run)
    assert run.paths.initial_adapter.resolve() == adapter


def test_a_job_without_one_needs_nothing(tmp_path: Path, base: Path) -> None:
    provide_adapter(make_run(tmp_path, base, tmp_path / "rows.jsonl", method="LoRA"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type IA3, expected LORA"),
        (
            {"r": 8},
            "tensors have another shape, such as base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        ),
        ({"target_modules": ["q_proj"]}, "has beyond what fits 4 tensors"),
        ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, "lacks 4 tensors"),
        ({"target_modules": ["nothing"]}, "it does not fit the base model: "),
    ],
)
def test_an_adapter_that_is_another_kind_or_does_not_fit_is_refused(
    tmp_path: Path, base: Path, adapter: Path, settings: dict[str, Any], words: str
) -> None:
    change(adapter, **settings)
    message = refusal(job(tmp_path, base, adapter))
    assert message.startswith(f"spec.adapter.source: file://{adapter} cannot be trained further:\n  ")
    assert words in message


def test_an_adapter_of_a_model_of_another_size_is_refused(tmp_path: Path, adapter: Path) -> None:
    save_base(tmp_path / "wide", hidden_size=64)
    message = refusal(job(tmp_path, tmp_path / "wide", adapter))
    assert "found [4, 32], expected [4, 64]; name the model that it was trained on" in message


def test_the_shape_that_the_job_asks_for_has_to_be_the_adapters(tmp_path: Path, base: Path, adapter: Path) -> None:
    message = refusal(job(tmp_path, base, adapter, lora={"rank": 16, "targetModules": ["q_proj"], "doRA": True}))
    for words in (
        "has rank 4, but spec.lora.rank is 16",
        "has alpha 8",
        "has targetModules ['q_proj', 'v_proj']",
        "doRA",
    ):
        assert words in message
    provide_adapter(job(tmp_path / "same", base, adapter, lora={"rank": 4, "alpha": 8}))


def test_a_hub_model_of_another_name_is_refused(tmp_path: Path, base: Path, adapter: Path) -> None:
    change(adapter, base_model_name_or_path="Qwen/Qwen2-7B")
    run = job(tmp_path, base, adapter)
    renamed = run.spec.model_copy(
        update={"model": run.spec.model.model_copy(update={"source": "hf://Qwen/Qwen2-0.5B"})}
    )
    message = refusal(run.model_copy(update={"spec": renamed}))
    assert (
        "it was trained on Qwen/Qwen2-7B, but spec.model.source is hf://Qwen/Qwen2-0.5B; name the same model" in message
    )


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("adapter_config.json", "adapter_config.json is missing; the source must be the folder of an adapter"),
        ("adapter_model.safetensors", "adapter_model.safetensors is missing; save the adapter as safetensors"),
    ],
)
def test_a_folder_without_an_adapters_files_is_refused(
    tmp_path: Path, base: Path, adapter: Path, file: str, words: str
) -> None:
    (adapter / file).unlink()
    assert words in refusal(job(tmp_path, base, adapter))
