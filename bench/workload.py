"""What every trainer is measured on: a model of Qwen2-7B's shape with random weights, and generated chat rows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_devcluster.tiny_model import CHAT_TEMPLATE, END_OF_TEXT, TURN_END, TURN_START

SHAPES: dict[str, dict[str, Any]] = {
    "7b": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
    "1.5b": {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "0.5b": {
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 768,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    },
}


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows whose lengths in tokens are log-normal, as chat data's are: most are short, a few are long."""

    count: int
    median: int
    spread: float
    shortest: int
    cutoff: int
    """Tokens of the longest row, which is where trainers are told to cut."""
    count_when_tiny: int


ROWS: dict[str, Rows] = {
    "chat": Rows(1500, median=300, spread=0.7, shortest=32, cutoff=1024, count_when_tiny=200),
    "long8k": Rows(320, median=6000, spread=0.3, shortest=2048, cutoff=8192, count_when_tiny=24),
    "long32k": Rows(96, median=24000, spread=0.3, shortest=8192, cutoff=32768, count_when_tiny=16),
}
_MARKS = 16
"""Tokens of the template around a row's words."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LETTER_TEXTS = (" ".join(_LETTERS), "user assistant system You are a helpful assistant.")
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What Qwen2's tokenizer splits a text into first."""


def write_rows(folder: Path, kind: str = "chat", tiny: bool = False) -> dict[str, Any]:
    """Write ``rows.jsonl`` and LLaMA-Factory's ``dataset_info.json``. Returns figures on the lengths."""
    rows = ROWS[kind]
    count = rows.count_when_tiny if tiny else rows.count
    chooser = random.Random(20240607)  # noqa: S311
    # Each word is one token of the tokenizer below, so that lengths in words are lengths in tokens.
    lengths = sorted(_length(chooser, rows) for _ in range(count))
    shuffled = chooser.sample(lengths, count)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rows.jsonl").open("w") as file:
        for length in shuffled:
            asked = max(1, int(length * chooser.uniform(0.2, 0.6)))
            turns = [("user", asked), ("assistant", max(1, length - asked))]
            messages = [{"role": role, "content": _words(chooser, words)} for role, words in turns]
            file.write(json.dumps({"messages": messages}) + "\n")
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    described = {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    (folder / "dataset_info.json").write_text(json.dumps({"rows": described}))
    found = {"rows": count, "words": sum(lengths), "median": lengths[count // 2], "longest": lengths[-1]}
    return {"kind": kind, **found}


def _length(chooser: random.Random, rows: Rows) -> int:
    drawn = rows.median * pow(2.718281828, rows.spread * chooser.gauss(0, 1))
    return int(min(rows.cutoff - _MARKS, max(rows.shortest, drawn)))


def _words(chooser: random.Random, count: int) -> str:
    return " ".join(chooser.choices(_LETTERS, k=count))


def write_model(
    folder: Path, shape: str, device: str, texts: Iterable[str] = _LETTER_TEXTS, vocabulary: int = 400
) -> Path:
    """Write a Qwen2 model with random bf16 weights, and a tokenizer that learnt its vocabulary from the texts.

    By default its words are single letters.
    """
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(7)
    changes = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    changes["vocab_size"] = max(vocabulary, SHAPES[shape]["vocab_size"])
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(Qwen2Config(**{**SHAPES[shape], **changes}), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    _tokenizer(texts, vocabulary).save_pretrained(folder)
    return folder


def _tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    # As Qwen2's: transformers, which goes by the model's type, puts them in place of others.
    tokenizer.normalizer = normalizers.NFC()
    pieces = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=TURN_END, pad_token=END_OF_TEXT, chat_template=CHAT_TEMPLATE
    )
