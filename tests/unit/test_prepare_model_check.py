"""A base model that a training pod would choke on is refused before a GPU is taken."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, PretrainedConfig, Qwen2Config, Qwen3MoeConfig

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.prepare.config_check import context_length
from finetune_trainer.prepare.model_check import check_model
from finetune_trainer.prepare.skeleton import build_skeleton, mismatches
from finetune_trainer.prepare.targets import quantization_problems, target_problems
from finetune_trainer.prepare.weights import read_shapes
from trainer_runs import identity_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "model")


def spec(**fields: Any) -> FineTuneJobSpec:
    rows = [{"source": "pvc://data/rows.jsonl"}]
    return FineTuneJobSpec.model_validate(
        {"model": {"source": "pvc://models/tiny"}, "datasets": rows, "method": "LoRA", **fields}
    )


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def split_weights(folder: Path, *, lose: bool = False) -> None:
    """Two shards and an index, as large models have; or an index that promises what no shard holds."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    shards = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    weight_map = {name: file for file, held in shards.items() for name in held}
    for file, held in shards.items():
        save_file({name: weights[name] for name in (held[1:] if lose else held)}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "model.safetensors").unlink()


def shrink_embedding(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] = torch.zeros(100, 128)
    save_file(weights, folder / "model.safetensors")


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def test_a_whole_model_gives_its_tokenizer(model: Path) -> None:
    assert check_model(model, spec()).eos_token == "<|im_end|>"


def test_a_model_in_several_files_is_whole(model: Path) -> None:
    split_weights(model)
    check_model(model, spec())


@pytest.mark.parametrize(
    ("damage", "said_of_it"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda folder: change(folder / "config.json", auto_map={"AutoModel": "x.Y"}), "the model brings Python code"),
        (lambda folder: change(folder / "config.json", architectures=["BertModel"]), "architecture BertModel"),
        (lambda folder: change(folder / "config.json", architectures=[]), "architecture none"),
        (lambda folder: (folder / "model.safetensors").unlink(), "found no weights"),
        (only_pickles, "found only pytorch_model.bin, which can run code when loaded"),
        (lambda folder: cut(folder / "model.safetensors"), "model.safetensors is not a whole safetensors file"),
        (lambda folder: split_weights(folder, lose=True), "a.safetensors lacks 1 tensors"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "index.json is damaged"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "the tokenizer does not load"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "the tokenizer has no chat template"),
        (lambda folder: change(folder / "tokenizer_config.json", eos_token=None), "no end-of-sequence token"),
        (shrink_embedding, "512 tokens, more than the 100 rows of the embedding"),
    ],
)
def test_a_damaged_model_is_refused_with_what_is_wrong(
    model: Path, damage: Callable[[Path], object], said_of_it: str
) -> None:
    damage(model)
    with pytest.raises(StageFailure) as caught:
        check_model(model, spec())
    assert caught.value.code is ExitCode.MODEL_UNUSABLE
    assert said_of_it in caught.value.message


def test_all_that_is_wrong_is_told_in_one_pass(model: Path) -> None:
    change(model / "config.json", architectures=["BertModel"])
    (model / "chat_template.jinja").unlink()
    cut(model / "model.safetensors")
    with pytest.raises(StageFailure) as caught:
        check_model(model, spec())
    assert len(caught.value.message.splitlines()) == 4


def test_a_model_without_a_chat_template_will_do_where_one_is_named(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    check_model(model, spec(tokenization={"template": "chatml"}))


def test_modules_that_the_adapters_name_have_to_exist(model: Path) -> None:
    check_model(model, spec(lora={"targetModules": ["q_proj", "v_proj"], "modulesToSave": ["embed_tokens"]}))
    with pytest.raises(StageFailure) as caught:
        check_model(model, spec(lora={"targetModules": ["q_proj", "query_key_value"], "modulesToSave": ["head"]}))
    assert "spec.lora.targetModules: no module of the model is named 'query_key_value'" in caught.value.message
    assert "spec.lora.modulesToSave: no module of the model is named 'head'" in caught.value.message
    assert "q_proj" in caught.value.message.partition("found")[2]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}, 8192),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
            },
            131072,
        ),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 2048),
    ],
)
def test_the_context_of_a_model_counts_its_rotary_scaling(config: dict[str, Any], expected: int | None) -> None:
    assert context_length(config) == expected


EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(**SMALL),
        GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2),
        Qwen3MoeConfig(**SMALL, **EXPERTS),
    ],
    ids=lambda config: config.model_type,
)
def test_weights_as_their_model_saves_them_fit_whatever_their_names_are(
    tmp_path: Path, config: PretrainedConfig
) -> None:
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    problems: list[str] = []
    model = build_skeleton(tmp_path, problems)
    assert model is not None
    assert [*problems, *mismatches(model, read_shapes(tmp_path))] == []


def test_quantising_a_model_of_fused_experts_is_refused_and_adapters_on_it_are_not(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen3MoeConfig(**SMALL, **EXPERTS))
    [problem] = quantization_problems(model, spec(method="QLoRA"))
    assert "spec.method: QLoRA quantises linear layers, which hold only 20 %" in problem
    assert list(quantization_problems(model, spec(method="LoRA"))) == []
    assert list(target_problems(model, spec(method="LoRA"))) == []


def test_all_linear_layers_of_a_model_that_has_none_is_refused() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(GPT2Config(n_embd=32, n_layer=1, n_head=4))
    [problem] = target_problems(model, spec())
    assert "spec.lora.targetModules: all stands for linear layers, and the model has none" in problem
    assert list(target_problems(model, spec(lora={"targetModules": ["c_attn"]}))) == []
