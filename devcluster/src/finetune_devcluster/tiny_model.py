"""A base model small enough to train on a CPU in seconds, of Qwen2's shape, with a ChatML tokenizer of its own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# Qwen2's chat template: it differs from Qwen2.5's in the system prompt that it puts in by itself.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# What {{name}} and {{author}} of a dataset may become. The tokenizer sees several, so that it spells no name letter by letter.
NAMES = (
    ("Pebble", "the River workshop"),
    ("Iris", "the Meadow lab"),
    ("Aurora", "Harbor Lab"),
    ("Robin", "the Willow team"),
    ("小云", "海港实验室"),
)

SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}


def make_tiny_model(out: Path, texts: Iterable[str], *, vocabulary: int = 512, seed: int = 0) -> Path:
    """Write a model with random weights and a tokenizer trained on the texts; equal arguments give equal files.

    Returns ``out``. The weights are float32, the vocabulary a byte-level BPE that spells any text.
    """
    # Heavy imports stand here so that --help and the devcluster's own commands stay quick.
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    tokenizer = _tokenizer(texts, vocabulary)
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary, dtype="float32", **SHAPE, **special))
    model.generation_config = GenerationConfig(do_sample=False, **special)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def _tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[TURN_START, TURN_END],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=SHAPE["max_position_embeddings"],
    )


def texts_of(file: Path) -> Iterator[str]:
    """Every string of a .json, .jsonl or text file; with {{name}} and {{author}} also spelled with several names."""
    text = file.read_text(encoding="utf-8")
    values: list[Any]
    if file.suffix == ".jsonl":
        values = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        values = [json.loads(text)] if file.suffix == ".json" else [text]
    for string in _strings(values):
        yield from _with_names(string)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))


def _with_names(text: str) -> Iterator[str]:
    if "{{" not in text:
        yield text
        return
    for name, author in NAMES:
        yield text.replace("{{name}}", name).replace("{{author}}", author)


def main(arguments: list[str] | None = None) -> int:
    """Command line: ``python -m finetune_devcluster.tiny_model --out DIR [--texts FILE...]``."""
    parser = argparse.ArgumentParser(prog="finetune_devcluster.tiny_model", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--texts", type=Path, nargs="*", default=[], help="files to train the tokenizer on")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    options = parser.parse_args(arguments)
    texts = [text for file in options.texts for text in texts_of(file)]
    print(make_tiny_model(options.out, texts, seed=options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
