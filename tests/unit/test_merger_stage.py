"""The merge stage as a whole: what it refuses, what it leaves, and how it goes on after being cut short."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_merger import writing
from finetune_merger.checkpoint import Checkpoint
from finetune_merger.main import main
from finetune_merger.stage import merge
from finetune_merger.writer import Shard
from finetune_operator.api.outcome import TERMINATION_LOG_VARIABLE, ExitCode, StageFailure, TerminationMessage
from finetune_operator.api.result import read_results
from support_wait import eventually
from tiny_models import byte_tokenizer, job, load, save_adapter, save_base


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_base(tmp_path / "base", tie_word_embeddings=False)
    save_adapter(tmp_path / "base", tmp_path / "adapter")
    return tmp_path


@pytest.fixture
def large_root(tmp_path: Path) -> Path:
    """Weights of 2.6 MB, for shards of 1 MB."""
    save_base(tmp_path / "base", shard="800KB", vocab_size=5000, hidden_size=64, tie_word_embeddings=False)
    save_adapter(tmp_path / "base", tmp_path / "adapter")
    return tmp_path


def failure(root: Path, **spec: Any) -> StageFailure:
    with pytest.raises(StageFailure) as caught:
        merge(job(root, **spec))
    return caught.value


def edit_adapter(root: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = root / "adapter/adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_command_leaves_a_model_its_figures_and_a_termination_message(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TERMINATION_LOG_VARIABLE, str(root / "termination"))
    (root / "run.json").write_text(job(root).dump())
    assert main(["merge", "--run", str(root / "run.json")]) == ExitCode.DONE
    message = TerminationMessage.decode((root / "termination").read_text())
    assert message is not None
    assert message.reason == "Succeeded"
    assert message.figures == read_results(root / "result.json")["merge"]
    assert float(message.figures["mergeMaxDifference"]) < 1e-3
    assert {"mergeMeanDifference", "mergeKl"} <= message.figures.keys()


def test_a_merge_that_is_told_to_stop_ends_at_once_and_is_tried_again(root: Path) -> None:
    (root / "run.json").write_text(job(root).dump())
    environment = {**os.environ, TERMINATION_LOG_VARIABLE: str(root / "termination")}
    command = [sys.executable, "-m", "finetune_merger.main", "merge", "--run", str(root / "run.json")]
    with subprocess.Popen(command, env=environment) as merging:
        eventually(lambda: "torch" in Path(f"/proc/{merging.pid}/maps").read_text())
        merging.send_signal(signal.SIGTERM)
        assert merging.wait(60) == ExitCode.PREEMPTED
    message = TerminationMessage.decode((root / "termination").read_text())
    assert message is not None
    assert message.reason == "Preempted"


def test_a_run_json_that_does_not_fit_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"version": "v9"}')
    assert main(["merge", "--run", str(tmp_path / "run.json")]) == ExitCode.INVALID_SPEC


@pytest.mark.parametrize(
    ("spec", "code", "said"),
    [({}, ExitCode.DONE, " INFO parity "), ({"method": "Full"}, ExitCode.INVALID_SPEC, "no adapter to merge")],
)
def test_the_process_ends_with_the_stages_code_and_its_last_words(
    root: Path, spec: dict[str, Any], code: ExitCode, said: str
) -> None:
    (root / "run.json").write_text(job(root, **spec).dump())
    environment = {**os.environ, TERMINATION_LOG_VARIABLE: str(root / "termination")}
    command = [sys.executable, "-m", "finetune_merger.main", "merge", "--run", str(root / "run.json")]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == code
    assert said in done.stderr
    assert (root / "merged").exists() is (code is ExitCode.DONE)


@pytest.mark.parametrize(("method", "quantises"), [("LoRA", False), ("QLoRA", True)])
def test_the_process_imports_what_its_merge_needs_and_no_more(root: Path, method: str, quantises: bool) -> None:
    (root / "run.json").write_text(job(root, method=method).dump())
    environment = {**os.environ, TERMINATION_LOG_VARIABLE: str(root / "termination")}
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "finetune_merger.main",
        "merge",
        "--run",
        str(root / "run.json"),
    ]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == ExitCode.DONE, done.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"torch", "transformers", "peft"} <= imported
    # Of what is left out, importtime lists the attempt, but none of its modules.
    assert ("bitsandbytes.functional" in imported) is quantises
    assert not [name for name in imported if name.startswith(("datasets.", "boto3."))]


def test_the_merged_folder_is_a_model_that_transformers_loads_with_its_tokenizer(root: Path) -> None:
    from transformers import AutoTokenizer

    merge(job(root))
    tokenizer = AutoTokenizer.from_pretrained(root / "merged")
    assert tokenizer.chat_template == byte_tokenizer().chat_template
    generated = load(root / "merged").generate(**tokenizer("hello", return_tensors="pt"), max_new_tokens=2)
    assert generated.shape[0] == 1
    assert not [path.name for path in (root / "merged").iterdir() if path.name.startswith(".")]


def test_the_tokenizer_and_generation_settings_that_were_trained_with_win_over_the_bases(root: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ 'as trained' }}"
    tokenizer.save_pretrained(root / "adapter")
    (root / "adapter/generation_config.json").write_text('{"eos_token_id": [7]}')
    merge(job(root))
    assert "as trained" in (root / "merged/chat_template.jinja").read_text()
    assert json.loads((root / "merged/generation_config.json").read_text()) == {"eos_token_id": [7]}


def test_files_stay_below_the_shard_size_and_the_index_names_every_tensor(large_root: Path) -> None:
    merge(job(large_root, merge={"maxShardSize": "2MB"}))
    files = sorted((large_root / "merged").glob("*.safetensors"))
    assert len(files) == 2
    assert all(path.stat().st_size < 2_010_000 for path in files)
    index = json.loads((large_root / "merged/model.safetensors.index.json").read_text())
    for path in files:
        assert {name for name, file in index["weight_map"].items() if file == path.name} == load_file(path).keys()
    assert index["metadata"]["total_size"] == sum(
        tensor.nbytes for path in files for tensor in load_file(path).values()
    )
    load(large_root / "merged")


def test_a_base_of_several_files_merges_into_one(large_root: Path) -> None:
    assert len(list((large_root / "base").glob("*.safetensors"))) > 1
    merge(job(large_root))
    assert (
        load_file(large_root / "merged/model.safetensors").keys() == Checkpoint.open(large_root / "base").tensors.keys()
    )


def test_a_finished_merge_is_not_done_again(root: Path) -> None:
    first = merge(job(root))
    before = (root / "merged/model.safetensors").stat()
    assert merge(job(root)) == first
    assert (root / "merged/model.safetensors").stat().st_ino == before.st_ino


def test_a_finished_merge_whose_figures_were_not_recorded_records_them(root: Path) -> None:
    figures = merge(job(root))
    (root / "result.json").unlink()
    merge(job(root))
    assert read_results(root / "result.json") == {"merge": dict(figures)}


def test_another_adapter_is_merged_again(root: Path) -> None:
    merge(job(root))
    before = load_file(root / "merged/model.safetensors")
    edit_adapter(root, lambda tensors: [tensor.mul_(2) for name, tensor in tensors.items() if "lora_B" in name])
    merge(job(root))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(load_file(root / "merged/model.safetensors")[name], before[name])


def test_a_merge_that_was_cut_short_goes_on_after_the_last_whole_file(
    large_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = job(large_root, merge={"maxShardSize": "1MB"})
    write = writing.write_shard
    written: list[Path] = []

    def die_in_the_second_file(shard: Shard, *arguments: Any) -> None:
        written.append(shard.path)
        if len(written) == 2:
            shard.beside.write_bytes(b"half")
            eventually(written[0].exists)
            raise KeyboardInterrupt
        write(shard, *arguments)

    monkeypatch.setattr(writing, "write_shard", die_in_the_second_file)
    with pytest.raises(KeyboardInterrupt):
        merge(run)
    assert not (large_root / "merged").exists()
    before = len(written)
    merge(run)
    assert written[0] not in written[before:]
    assert written[1] in written[before:]
    assert not list((large_root / "merged").glob(".*"))
    load(large_root / "merged")


def test_adapter_tensors_that_fit_nothing_in_the_base_are_all_named(root: Path) -> None:
    def stray(tensors: dict[str, torch.Tensor]) -> None:
        for layer in (8, 9):
            tensors[f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 32)
            tensors[f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_B.weight"] = torch.zeros(32, 4)

    edit_adapter(root, stray)
    found = failure(root)
    assert found.code is ExitCode.MODEL_UNUSABLE
    assert "model.layers.8.self_attn.q_proj.weight is not in the base model" in found.message
    assert "model.layers.9.self_attn.q_proj.weight" in found.message
    assert not (root / "merged").exists()


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias",
        "base_model.model.model.layers.0.self_attn.k_proj.ia3_l",
        "base_model.model.model.embed_tokens.trainable_tokens_delta",
        "unprefixed.weight",
    ],
)
def test_an_adapter_tensor_that_nothing_consumes_is_an_error(root: Path, key: str) -> None:
    edit_adapter(root, lambda tensors: tensors.update({key: torch.zeros(4)}))
    found = failure(root)
    assert found.code is ExitCode.MODEL_UNUSABLE
    assert key.removeprefix("base_model.model.") in found.message


def test_half_a_pair_is_an_error(root: Path) -> None:
    missing = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    edit_adapter(root, lambda tensors: tensors.pop(missing))
    assert "model.layers.1.mlp.up_proj" in failure(root).message


def test_a_base_of_another_shape_is_refused_with_both_shapes(root: Path) -> None:
    shutil.rmtree(root / "base")
    save_base(root / "base", hidden_size=64, tie_word_embeddings=False)
    found = failure(root)
    assert found.code is ExitCode.MODEL_UNUSABLE
    assert "(64, 64) in the base model and (32, 32) in the adapter" in found.message


def test_a_base_of_the_same_shape_but_another_configuration_is_refused(root: Path) -> None:
    shutil.copytree(root / "base", root / "other")
    edit_json(root / "other/config.json", rope_theta=5e5)
    edit_json(root / "adapter/adapter_config.json", base_model_name_or_path=str(root / "other"))
    found = failure(root)
    assert found.code is ExitCode.MODEL_UNUSABLE
    assert str(root / "other") in found.message


def test_an_adapter_of_another_kind_is_refused_with_every_key_that_does_not_fit(root: Path) -> None:
    edit_json(root / "adapter/adapter_config.json", peft_type="IA3", r="many")
    found = failure(root)
    assert found.code is ExitCode.MODEL_UNUSABLE
    assert "peft_type: Input should be 'LORA'; r: Input should be a valid integer" in found.message


def test_an_adapter_whose_base_was_moved_is_merged(root: Path) -> None:
    edit_json(root / "adapter/adapter_config.json", base_model_name_or_path="/gone/base")
    assert merge(job(root))


def test_quantised_base_weights_are_refused(root: Path) -> None:
    edit_json(root / "base/config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    found = failure(root)
    assert found.code is ExitCode.MODEL_UNUSABLE
    assert "quantised" in found.message


def test_method_full_has_nothing_to_merge(root: Path) -> None:
    assert failure(root, method="Full").code is ExitCode.INVALID_SPEC


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("base/model.safetensors", "neither model.safetensors.index.json nor model.safetensors"),
        ("base/config.json", "config.json"),
        ("adapter/adapter_model.safetensors", "adapter_model.safetensors"),
        ("adapter/adapter_config.json", "adapter_config.json"),
    ],
)
def test_a_missing_file_is_named(root: Path, missing: str, named: str) -> None:
    (root / missing).unlink()
    found = failure(root)
    assert found.code is ExitCode.MODEL_UNUSABLE
    assert named in found.message


def test_a_truncated_file_is_named(root: Path) -> None:
    path = root / "base/model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert str(path) in failure(root).message


def test_a_weight_that_fp16_cannot_hold_is_refused(root: Path) -> None:
    edit_adapter(root, lambda tensors: [tensor.mul_(1e4) for tensor in tensors.values()])
    found = failure(root, merge={"dtype": "FP16"})
    assert found.code is ExitCode.MODEL_UNUSABLE
    assert "set merge.dtype to BF16 or FP32" in found.message


def test_a_volume_without_room_is_said_before_anything_is_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    found = failure(root)
    assert found.code is ExitCode.STORAGE_FULL
    assert not list(root.rglob("*.partial/*.safetensors"))
