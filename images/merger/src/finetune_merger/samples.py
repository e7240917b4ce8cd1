"""Token ids that the parity of two models is measured on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

ROWS = 4
TOKENS = 64
"""Tokens taken of each row: four rows of 64 are 256 predictions over the whole vocabulary, seconds of computing for 7B."""

_PROMPT = (
    "The quick brown fox jumps over the lazy dog. Question: why is the sky blue? Answer: because the air scatters the "
    "short waves of the sun's light more than the long ones. 1 + 1 = 2; def add(a, b): return a + b"
)


def sample_rows(data: Path, model: Path) -> list[torch.Tensor]:
    """The heads of rows spread over the prepared data; where there are none, those of a built-in prompt."""
    try:
        rows = _prepared(data / "train")
    except FileNotFoundError:
        rows = []
    return rows or [_prompt(model)]


def _prepared(folder: Path) -> list[torch.Tensor]:
    ids = np.load(folder / "input_ids.npy", mmap_mode="r")
    offsets = np.load(folder / "offsets.npy", mmap_mode="r")
    chosen = sorted({int(row) for row in np.linspace(0, len(offsets) - 2, ROWS)}) if len(offsets) > 1 else []
    rows = [torch.from_numpy(np.array(ids[offsets[row] : offsets[row + 1]][:TOKENS], dtype=np.int64)) for row in chosen]
    return [row for row in rows if len(row)]


def _prompt(model: Path) -> torch.Tensor:
    if (model / "tokenizer_config.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
        return torch.tensor(tokenizer(_PROMPT)["input_ids"][:TOKENS])
    # A model without a tokenizer still has a vocabulary.
    vocabulary = int(json.loads((model / "config.json").read_bytes())["vocab_size"])
    return torch.arange(TOKENS) % vocabulary
