"""A trained adapter in PEFT's format, taken apart into what it does to each weight of the base model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from finetune_merger.rows import CPU
from finetune_operator.api.outcome import ExitCode, StageFailure

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"

_PREFIX = "base_model.model."
_WRAPPERS = (".base_layer", ".modules_to_save", ".original_module")
_PARTS = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_embedding_A": "a",
    ".lora_embedding_B": "b",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}


class LoraSettings(BaseModel):
    """What adapter_config.json says of the arithmetic. PEFT's own class takes seconds to import; the proof reads it with that."""

    model_config = ConfigDict(frozen=True)

    peft_type: Literal["LORA"]
    r: int
    lora_alpha: float
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}
    base_model_name_or_path: str | None = None
    use_qalora: bool = False
    layer_replication: Any = None
    alora_invocation_tokens: Any = None


@dataclass(frozen=True, slots=True)
class LowRank:
    """W + scale · B·A (arXiv 2106.09685); with a magnitude, each output row is then scaled to it (DoRA, arXiv 2402.09353)."""

    a: torch.Tensor
    """(rank, in)"""
    b: torch.Tensor
    """(out, rank)"""
    scale: float
    magnitude: torch.Tensor | None = None
    """(out,)"""
    transposed: bool = False
    """The weight is stored (in, out), as embeddings and GPT-2's Conv1D are."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight that this fits, as stored."""
        out, into = self.b.shape[0], self.a.shape[1]
        return (into, out) if self.transposed else (out, into)


@dataclass(frozen=True, slots=True)
class Adapter:
    """What the adapter does, by the name of the base model's tensor."""

    config: LoraSettings
    updates: Mapping[str, LowRank]
    replacements: Mapping[str, torch.Tensor]
    """Tensors trained in full: modulesToSave."""

    @property
    def touched(self) -> set[str]:
        """Names of the tensors that differ from the base model's."""
        return {*self.updates, *self.replacements}


@dataclass(slots=True)
class _Parts:
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    embedding: bool = False


def read_adapter(folder: Path, device: torch.device = CPU) -> Adapter:
    """Read the adapter, its tensors to the device.

    Raises StageFailure (MODEL_UNUSABLE) where it is missing or holds anything that cannot be folded in.
    """
    config = _read_config(folder)
    try:
        tensors = load_file(folder / WEIGHTS_FILE, device=str(device))
    except (OSError, SafetensorError) as error:
        raise _unusable(folder / WEIGHTS_FILE, f"not a readable safetensors file ({error})") from error
    parts, replacements, unknown = _sort(tensors)
    broken = [name for name, found in parts.items() if not {"a", "b"} <= found.tensors.keys()]
    if unknown or broken:
        raise _unusable(
            folder / WEIGHTS_FILE,
            f"tensors that cannot be folded into a weight: {_some(unknown + broken)}; expected pairs of lora_A and lora_B",
        )
    updates = {f"{module}.weight": _low_rank(module, found, config) for module, found in parts.items()}
    return Adapter(config, updates, replacements)


def _read_config(folder: Path) -> LoraSettings:
    try:
        config = LoraSettings.model_validate_json((folder / CONFIG_FILE).read_bytes())
    except OSError as error:
        raise _unusable(folder / CONFIG_FILE, f"not a LoRA adapter ({error})") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise _unusable(folder / CONFIG_FILE, f"not a LoRA adapter ({wrong})") from error
    beyond = [
        name for name in ("use_qalora", "layer_replication", "alora_invocation_tokens") if getattr(config, name, None)
    ]
    if beyond:
        raise _unusable(
            folder / CONFIG_FILE, f"{', '.join(beyond)} cannot be folded into the weights; serve it un-merged"
        )
    return config


def _sort(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, _Parts], dict[str, torch.Tensor], list[str]]:
    """Sort the adapter's tensors into parts of low-rank updates, whole replacements, and those not understood."""
    parts: dict[str, _Parts] = {}
    replacements: dict[str, torch.Tensor] = {}
    unknown: list[str] = []
    for key, tensor in tensors.items():
        name = key.removeprefix(_PREFIX)
        suffix = next((suffix for suffix in _PARTS if name.endswith(suffix)), None)
        if suffix is not None:
            found = parts.setdefault(name.removesuffix(suffix), _Parts())
            found.tensors[_PARTS[suffix]] = tensor
            found.embedding |= "embedding" in suffix
        elif not key.startswith(_PREFIX) or "lora_" in name or "trainable_tokens" in name:
            unknown.append(key)
        else:
            replacements[base_name(name)] = tensor
    return parts, replacements, unknown


def base_name(name: str) -> str:
    """Name that a parameter has in the base model, from the one it has under PEFT's wrappers."""
    name = name.removeprefix(_PREFIX)
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _low_rank(module: str, found: _Parts, config: LoraSettings) -> LowRank:
    a, b = found.tensors["a"], found.tensors["b"]
    magnitude = found.tensors.get("magnitude")
    if found.embedding and magnitude is not None:
        raise _unusable(Path(module), "DoRA on an embedding cannot be folded into the weights; serve it un-merged")
    rank = _of_pattern(config.rank_pattern, module, config.r)
    alpha = _of_pattern(config.alpha_pattern, module, config.lora_alpha)
    if a.shape[0] != rank or b.shape[1] != rank:
        raise _unusable(Path(module), f"{CONFIG_FILE} says rank {rank}, the tensors have {a.shape[0]} and {b.shape[1]}")
    scale = alpha / math.sqrt(rank) if config.use_rslora else alpha / rank
    return LowRank(a, b, scale, magnitude, transposed=found.embedding or config.fan_in_fan_out)


def _of_pattern(pattern: Mapping[str, float], module: str, otherwise: float) -> float:
    """The value for a module: of the first key that matches the end of its name, as in PEFT's get_pattern_key."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), otherwise)


def _unusable(where: Path, what: str) -> StageFailure:
    return StageFailure(ExitCode.MODEL_UNUSABLE, f"{where}: {what}. Train again, or set merge.enabled to false.")


def _some(names: list[str], most: int = 5) -> str:
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
