"""A base model that a training pod would choke on is refused before a GPU is taken."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.prepare.model_check import check_model
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
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
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
