"""The files of the two tutorials, each by itself and all together."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.api.job import FineTuneJob
from finetune_operator.api.manifest_yaml import dump_all, load_all
from finetune_operator.cli.convert.convert import convert
from finetune_operator.cli.convert.options import Options
from llama_factory import field, spec_of

FILES = Path(__file__).parent / "data" / "tutorials"
ALL = sorted(FILES.glob("*.yaml"))
QWEN = {
    "model": {"source": "hf://Qwen/Qwen2-7B-Instruct"},
    "tokenization": {"template": "qwen", "cutoffLen": 1024, "packing": "None", "compatibility": "LLaMAFactory"},
    "evaluation": {"fraction": "0.1", "steps": 500, "perDeviceBatchSize": 1},
    "logging": {"steps": 10},
    "checkpoints": {"steps": 100},
}
TRAINING = {
    "epochs": 1,
    "perDeviceBatchSize": 1,
    "gradientAccumulationSteps": 16,
    "learningRate": "1e-4",
    "scheduler": "Cosine",
    "warmupRatio": "0.1",
    "optimizer": "AdamW",
    "weightDecay": "0",
    "maxGradNorm": "1",
    "precision": "BF16",
    "seed": 42,
    "gradientCheckpointing": "Enabled",
}
LORA = {"rank": 16, "alpha": 16, "dropout": "0.05", "targetModules": ["all"]}
NF4 = {"bits": 4, "type": "NF4", "doubleQuantization": True}
EXPECTED = {
    "qwen2-7b-full-sft": {
        **QWEN,
        "method": "Full",
        "deepspeed": {"stage": 3},
        "training": {**TRAINING, "learningRate": "1e-5"},
    },
    "qwen2-7b-lora-sft": {**QWEN, "method": "LoRA", "lora": LORA, "training": TRAINING},
    "qwen2-7b-qlora-sft": {**QWEN, "method": "QLoRA", "lora": LORA, "quantization": NF4, "training": TRAINING},
    "yi_lora_sft_bitsandbytes": {
        "method": "QLoRA",
        "lora": {"rank": 8, "alpha": 16, "dropout": "0", "targetModules": ["all"]},
        "quantization": NF4,
        "tokenization": {"template": "yi", "cutoffLen": 1024, "packing": "None", "compatibility": "LLaMAFactory"},
        "training": {**TRAINING, "epochs": 3, "gradientAccumulationSteps": 8, "precision": "FP16"},
        "checkpoints": {"steps": 500},
    },
}


def named(*stems: str) -> list[str]:
    return [str(FILES / f"{stem}.yaml") for stem in stems]


@pytest.mark.parametrize("stem", EXPECTED)
def test_a_training_file_by_itself_becomes_one_valid_job(stem: str) -> None:
    spec = spec_of(convert(named(stem), Options()))
    assert {name: spec.get(name) for name in EXPECTED[stem]} == EXPECTED[stem]


def test_the_registered_dataset_keeps_its_columns_and_tags() -> None:
    spec = spec_of(convert(named("qwen2-7b-lora-sft"), Options()))
    assert spec["datasets"] == [
        {
            "source": f"file://{FILES / 'qwen_train_data.jsonl'}",
            "format": "ShareGPT",
            "columns": {"messages": "messages"},
            "tags": {
                "role": "role",
                "content": "content",
                "user": "user",
                "assistant": "assistant",
                "system": "system",
            },
        }
    ]


def test_a_relative_model_path_counts_from_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = spec_of(convert(named("yi_lora_sft_bitsandbytes"), Options()))
    assert spec["model"] == {"source": f"file://{tmp_path.parent / 'Yi-1.5-6B-Chat'}"}


def test_the_identity_rows_come_from_this_project_and_their_placeholders_from_flags() -> None:
    options = Options(placeholders={"name": "Iris", "author": "Meadow"})
    (dataset,) = spec_of(convert(named("yi_lora_sft_bitsandbytes"), options))["datasets"]
    assert dataset["source"] == "configmap://identity/identity.json"
    assert dataset["placeholders"] == {"name": "Iris", "author": "Meadow"}
    assert dataset["maxSamples"] == 1000


def test_placeholders_that_are_not_set_are_told() -> None:
    result = convert(named("yi_lora_sft_bitsandbytes"), Options(placeholders={"name": "Iris"}))
    assert any("--placeholder author=…" in note for note in result.notes)
    assert not any("--placeholder name=…" in note for note in result.notes)


def test_the_export_file_sets_the_merge_of_the_job_that_trains_the_adapter() -> None:
    spec = spec_of(convert(named("qwen2-7b-merge-lora", "qwen2-7b-lora-sft"), Options()))
    assert spec["merge"] == {"enabled": True, "dtype": "Auto", "maxShardSize": "2GB"}


def test_the_chat_file_serves_the_adapter_unmerged() -> None:
    spec = spec_of(convert(named("yi_lora_sft_bitsandbytes", "yi_lora_sft"), Options()))
    assert spec["serving"] == {"mode": "Adapter", "gpus": 1}
    assert spec["merge"] == {"enabled": False}


@pytest.mark.parametrize(
    ("stem", "training"),
    [("qwen2-7b-merge-lora", "qwen2-7b-lora-sft"), ("yi_lora_sft", "yi_lora_sft_bitsandbytes")],
)
def test_an_export_or_chat_file_alone_is_refused_and_names_the_file_that_is_missing(stem: str, training: str) -> None:
    (problem,) = convert(named(stem), Options()).problems
    line = 3 if stem == "qwen2-7b-merge-lora" else 2
    assert problem.startswith(f"{FILES / stem}.yaml:{line}: adapter_name_or_path: found saves/")
    assert f"pass {FILES / training}.yaml as well" in problem


def test_all_six_together_become_the_four_jobs_that_train() -> None:
    result = convert([str(path) for path in ALL], Options())
    assert result.problems == []
    assert [manifest["metadata"]["name"] for manifest in result.manifests] == [
        "qwen2-7b-full-sft",
        "qwen2-7b-lora-sft",
        "qwen2-7b-qlora-sft",
        "yi-lora-sft-bitsandbytes",
    ]


def test_the_stream_reads_back_as_the_same_jobs() -> None:
    manifests = convert([str(path) for path in ALL], Options()).manifests
    read_back = load_all(dump_all(manifests))
    assert read_back == manifests
    jobs = [FineTuneJob.from_manifest(manifest) for manifest in read_back]
    assert [field(job.spec.to_manifest(), "method") for job in jobs] == ["Full", "LoRA", "QLoRA", "QLoRA"]


def test_a_deepspeed_example_that_is_not_here_is_known_by_its_name() -> None:
    notes = convert(named("qwen2-7b-full-sft"), Options()).notes
    assert any("deepspeed: examples/deepspeed/ds_z3_config.json is not here" in note for note in notes)


def test_keys_without_a_meaning_are_noted_once_each_with_file_and_reason() -> None:
    (path,) = named("qwen2-7b-lora-sft")
    notes = convert([path], Options()).notes
    silent = (
        "overwrite_cache",
        "preprocessing_num_workers",
        "output_dir",
        "plot_loss",
        "overwrite_output_dir",
        "ddp_timeout",
    )
    assert [note.split(": ")[:2] for note in notes] == [[path, key] for key in silent]
