"""The number format that a model's weights are stored and loaded in."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PretrainedConfig

_FORMATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def stored_type(folder: Path, config: PretrainedConfig) -> torch.dtype:
    """As transformers finds it out with ``dtype="auto"``: config.json says, or else the first weights do."""
    named = getattr(config, "dtype", None)
    if isinstance(named, torch.dtype):
        return named
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            formats = (_FORMATS.get(file.get_slice(name).get_dtype()) for name in file.keys())  # noqa: SIM118 - not a dict
            if found := next((known for known in formats if known is not None), None):
                return found
    return torch.float32
