"""Runs of the trainer's stages, made by hand as the operator makes them, and the demo's tiny base model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune_devcluster.tiny_model import make_tiny_model, texts_of
from finetune_operator.api.run import RunConfig

IDENTITY = Path(__file__).parents[2] / "examples" / "data" / "identity.json"
IDENTITY_ROWS = {"format": "Alpaca", "placeholders": {"name": "Pebble", "author": "the River workshop"}}
"""How the rows of that file are read."""

QUICK = {"maxSteps": 4, "perDeviceBatchSize": 2, "gradientAccumulationSteps": 1, "learningRate": "1e-3"}


def identity_model(folder: Path, *, seed: int = 0) -> Path:
    """A tiny model whose tokenizer knows the words of the identity set."""
    return make_tiny_model(folder, texts_of(IDENTITY), seed=seed)


def bf16_identity_model(folder: Path) -> Path:
    """The same with its weights in bf16."""
    import torch
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(identity_model(folder), dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def make_run(root: Path, model: Path, data: Path | str, /, name: str = "job", **spec: Any) -> RunConfig:
    """A run on the CPU; ``spec`` adds to or replaces fields, ``dataset`` fields of the one dataset."""
    dataset = {"source": data if isinstance(data, str) else f"file://{data}", **spec.pop("dataset", {})}
    fields = {
        "model": {"source": f"file://{model}"},
        "datasets": [dataset],
        "method": "Full",
        "tokenization": {"cutoffLen": 128, "packing": "None"},
        "training": QUICK,
        "resources": {"gpusPerNode": 0},
        **spec,
    }
    return RunConfig.model_validate({"name": name, "uid": f"uid-{name}", "root": str(root), "spec": fields})


def write_run(run: RunConfig, folder: Path) -> Path:
    """The run as a file."""
    path = folder / f"{run.name}.run.json"
    path.write_text(run.dump(), encoding="utf-8")
    return path


def write_lines(path: Path, rows: list[Any]) -> Path:
    """A JSON Lines file; strings are written as they are."""
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def chat(*texts: str, system: str | None = None) -> dict[str, Any]:
    """A row of format Messages: user and assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]
    opening = [] if system is None else [{"role": "system", "content": system}]
    return {"messages": opening + messages}
