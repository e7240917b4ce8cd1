"""Ways in which the folder of a base model can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Damage = Callable[[Path], object]
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer_config.json"


def without(*names: str) -> Damage:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def written(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def config(**fields: Any) -> Damage:
    return lambda folder: change(folder / CONFIG, **fields)


def tokenizer(**fields: Any) -> Damage:
    return lambda folder: change(folder / TOKENIZER, **fields)


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))


def both(*damages: Damage) -> Damage:
    def all_of_them(folder: Path) -> None:
        for damage in damages:
            damage(folder)

    return all_of_them


def cut(name: str, count: int = 100) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-count])


def only_pickles(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def an_adapter(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "Qwen/Qwen2-7B"}))


def in_shards(*, lose_tensor: bool = False, lose_file: bool = False, names: str = "{}.safetensors") -> Damage:
    def split(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        ordered = sorted(weights)
        half = len(ordered) // 2
        shards = {names.format("a"): ordered[:half], names.format("b"): ordered[half:]}
        weight_map = {tensor: file for file, held in shards.items() for tensor in held}
        for file, held in shards.items():
            if "/" not in file:
                save_file({tensor: weights[tensor] for tensor in held[lose_tensor:]}, folder / file)
        if lose_file:
            (folder / "b.safetensors").unlink()
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        (folder / WEIGHTS).unlink()

    return split


def index_without_metadata(folder: Path) -> None:
    path = folder / f"{WEIGHTS}.index.json"
    path.write_text(json.dumps({"weight_map": json.loads(path.read_bytes())["weight_map"]}))


def without_head(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights.pop("lm_head.weight", None)
    save_file(weights, folder / WEIGHTS)
    change(folder / CONFIG, tie_word_embeddings=False)


def short_embedding(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    width = weights["model.embed_tokens.weight"].shape[1]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = torch.zeros(100, width)
    save_file(weights, folder / WEIGHTS)
    change(folder / CONFIG, vocab_size=100)
