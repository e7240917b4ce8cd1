"""What a model folder holds beside its weights: configuration, tokenizer, chat template, licence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from finetune_merger.checkpoint import INDEX_FILE
from finetune_merger.layout import Layout
from finetune_operator.api.delivery import MergeDtype
from finetune_operator.api.result import write_whole

TOKENIZER_MARK = "tokenizer_config.json"
_TOKENIZER = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "*.tiktoken",
    "chat_template*", "additional_chat_templates",
)  # fmt: skip
_GENERATION = "generation_config.json"
_BASE_ONLY = ("*processor_config.json", "LICENSE*", "NOTICE*")
_DTYPES = {MergeDtype.BF16: "bfloat16", MergeDtype.FP16: "float16", MergeDtype.FP32: "float32"}


def copy_sidecars(base: Path, adapter: Path, target: Path) -> None:
    """Copy tokenizer and generation settings: the adapter's, with which it was trained, or else the base model's."""
    tokenizer = adapter if (adapter / TOKENIZER_MARK).exists() else base
    _copy(tokenizer, target, _TOKENIZER)
    _copy(adapter if (adapter / _GENERATION).exists() else base, target, (_GENERATION,))
    _copy(base, target, _BASE_ONLY)


def write_config(config: dict[str, Any], target: Path, dtype: MergeDtype, unties: bool) -> None:
    """Write config.json: the base model's, but for what the merge changed."""
    changed = dict(config)
    if dtype in _DTYPES:
        changed.pop("torch_dtype", None)
        changed["dtype"] = _DTYPES[dtype]
    if unties:
        changed["tie_word_embeddings"] = False
    write_whole(target / "config.json", json.dumps(changed, indent=2, ensure_ascii=False).encode())


def write_index(layout: Layout, target: Path) -> None:
    """Write the index of a model of several files; a model of one needs none."""
    if len(layout.files) == 1:
        return
    places = {slot.name: file for file, slots in layout.files.items() for slot in slots}
    index = {"metadata": {"total_size": layout.size}, "weight_map": dict(sorted(places.items()))}
    write_whole(target / INDEX_FILE, json.dumps(index, indent=2).encode())


def _copy(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    for path in sorted({path for pattern in patterns for path in source.glob(pattern)}):
        if path.is_dir():
            shutil.copytree(path, target / path.name, dirs_exist_ok=True)
        else:
            write_whole(target / path.name, path.read_bytes())
