"""The demo's base model: small, the same every time, and able to spell what it has to learn."""

from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from finetune_devcluster.tiny_model import main, texts_of
from trainer_runs import IDENTITY, identity_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_model(tmp_path_factory.mktemp("model"))


def test_equal_texts_and_seed_make_equal_files(model: Path, tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "again"), "--texts", str(IDENTITY)]) == 0
    names = sorted(path.name for path in model.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert all((model / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


def test_another_seed_makes_other_weights_and_the_same_tokenizer(model: Path, tmp_path: Path) -> None:
    other = identity_model(tmp_path / "other", seed=1)
    assert (model / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()
    assert (model / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_it_is_shaped_like_qwen2_and_speaks_chatml_with_qwen2s_system_prompt(model: Path) -> None:
    config, tokenizer = AutoConfig.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    assert (config.architectures, config.vocab_size, len(tokenizer)) == (["Qwen2ForCausalLM"], 512, 512)
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert rendered == system + "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("text", ["Pebble", "the Meadow lab", "Zarathustra", "小云 😀\n\tend"])
def test_any_text_is_spelled_and_read_back(model: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_rows_are_read_with_several_names_in_place_of_the_placeholders() -> None:
    texts = list(texts_of(IDENTITY))
    assert "I am Pebble, an assistant made by the River workshop." in texts
    assert "I am Iris, an assistant made by the Meadow lab." in texts
    assert not any("{{" in text for text in texts)
