"""What every trainer is measured on: a model of Qwen2-7B's shape with random weights, and generated chat rows."""

from __future__ import annotations

import json
import random
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
ROWS, MEDIAN, SPREAD, SHORTEST, LONGEST = 1500, 300, 0.7, 32, 1024
"""Rows, and the log-normal lengths in tokens that chat data has: most are short, a few are long."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_rows(folder: Path, count: int = ROWS) -> dict[str, Any]:
    """Write ``rows.jsonl`` and LLaMA-Factory's ``dataset_info.json``. Returns figures on the lengths."""
    chooser = random.Random(20240607)  # noqa: S311
    # Each word is one token of the tokenizer below, so that lengths in words are lengths in tokens.
    lengths = sorted(
        int(min(LONGEST - 16, max(SHORTEST, MEDIAN * pow(2.718281828, SPREAD * chooser.gauss(0, 1)))))
        for _ in range(count)
    )
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
    return {"rows": count, "words": sum(lengths), "median": lengths[count // 2], "longest": lengths[-1]}


def _words(chooser: random.Random, count: int) -> str:
    return " ".join(chooser.choices(_LETTERS, k=count))


def write_model(folder: Path, shape: str, device: str) -> Path:
    """Write a Qwen2 model with random bf16 weights and a tokenizer whose words are single letters."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(7)
    special = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(Qwen2Config(**SHAPES[shape], **special), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(_LETTERS), "user assistant system You are a helpful assistant."], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=TURN_END, pad_token=END_OF_TEXT, chat_template=CHAT_TEMPLATE
    )
