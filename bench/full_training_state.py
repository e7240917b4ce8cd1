"""Whether Full training in bf16 with split masters learns as well as in float32: three ways to hold weights, side by side.

    python bench/full_training_state.py > bench/results/DATE-cpu-full-training-state.jsonl

A tiny model learns a table of which token follows which two, and is then tuned to another table, three times with other
rows, at three learning rates. Every row is new, so that the loss on rows held back is a measure of learning alone.
Prints a JSON line a training: losses on the rows held back, every 50 steps, and of the weights as they are delivered.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from finetune_trainer.train.split_adamw import SplitAdamW

TOKENS, LENGTH, ROWS = 48, 32, 16
STEPS, EVERY, SEEDS = 300, 50, 3
RATES = (1e-5, 1e-4, 1e-3)
WAYS = ("float32", "split", "bf16")
"""Float32 weights under bf16 autocast with AdamW; bf16 weights with SplitAdamW; bf16 weights with AdamW, all of it bf16."""


def main() -> None:
    """Pre-train once, then tune in every way."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = _model()
    _train(base, "float32", 2e-3, _rows(_table(1), seed=1), _table(1), steps=600)
    weights = {name: weight.bfloat16() for name, weight in base.state_dict().items()}
    for rate, seed, way in product(RATES, range(SEEDS), WAYS):
        model = _model()
        model.load_state_dict(weights)
        losses = _train(model, way, rate, _rows(_table(2), seed=100 + seed), _table(2), steps=STEPS)
        # A float32 training delivers its weights in the format of the base model's files.
        delivered = _evaluated(model.to(torch.bfloat16), _held_back(_table(2)))
        print(
            json.dumps({"rate": rate, "seed": seed, "way": way, "losses": losses, "delivered": delivered}), flush=True
        )


def _model() -> Any:
    config = Qwen2Config(
        vocab_size=TOKENS,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    return Qwen2ForCausalLM(config)


def _table(seed: int) -> Tensor:
    """Probabilities of the next token by the two before it."""
    random = torch.Generator().manual_seed(seed)
    return torch.softmax(3 * torch.randn(TOKENS, TOKENS, TOKENS, generator=random), -1)


def _rows(table: Tensor, seed: int) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(seed)
    while True:
        columns = list(torch.randint(TOKENS, (2, ROWS), generator=random))
        while len(columns) < LENGTH:
            columns.append(torch.multinomial(table[columns[-2], columns[-1]], 1, generator=random).squeeze(1))
        yield torch.stack(columns, 1)


def _held_back(table: Tensor) -> list[Tensor]:
    return [next(_rows(table, seed=1000 + each)) for each in range(16)]


def _train(model: Any, way: str, rate: float, rows: Iterator[Tensor], table: Tensor, steps: int) -> dict[int, float]:
    if way != "float32":
        model.to(torch.bfloat16)
    optimizer_class = SplitAdamW if way == "split" else torch.optim.AdamW
    optimizer = optimizer_class(model.parameters(), lr=rate, weight_decay=0.01)
    held_back = _held_back(table)
    losses = {0: _evaluated(model, held_back)}
    for step in range(1, steps + 1):
        _loss(model, next(rows)).backward()  # type: ignore[no-untyped-call]
        if isinstance(optimizer, SplitAdamW):
            optimizer.clip(1.0)
        else:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % EVERY == 0:
            losses[step] = _evaluated(model, held_back)
            print(way, rate, step, losses[step], file=sys.stderr)
    return losses


def _loss(model: Any, ids: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids).logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


@torch.no_grad()
def _evaluated(model: Any, rows: list[Tensor]) -> float:
    return round(sum(_loss(model, ids).item() for ids in rows) / len(rows), 5)


if __name__ == "__main__":
    main()
