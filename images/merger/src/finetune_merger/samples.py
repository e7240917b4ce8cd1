"""Token ids that the parity of two models is measured on."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer

_PROMPT_TOKENS = 64
_PROMPT = (
    "The quick brown fox jumps over the lazy dog. Question: why is the sky blue? Answer: because the air scatters the "
    "short waves of the sun's light more than the long ones. 1 + 1 = 2; def add(a, b): return a + b"
)


def sample_rows(prepared: Path, model: Path) -> list[torch.Tensor]:
    """The rows that prepare set aside; where an older prepare set none aside, a built-in prompt."""
    try:
        rows = json.loads(prepared.read_bytes())
    except FileNotFoundError:
        return [_prompt(model)]
    return [torch.tensor(row) for row in rows if row]


def _prompt(model: Path) -> torch.Tensor:
    if (model / "tokenizer_config.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
        return torch.tensor(tokenizer(_PROMPT)["input_ids"][:_PROMPT_TOKENS])
    # A model without a tokenizer still has a vocabulary.
    vocabulary = int(json.loads((model / "config.json").read_bytes())["vocab_size"])
    return torch.arange(_PROMPT_TOKENS) % vocabulary
