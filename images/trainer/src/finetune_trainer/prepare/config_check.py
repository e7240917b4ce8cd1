"""What config.json says of a base model, as far as it can be wrong without looking at anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.prepare.code_check import settings_of

Config = Mapping[str, Any]


def read_config(folder: Path, problems: list[str]) -> Config | None:
    """config.json as it stands; None, and why, where there is none to read."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        problems.append(_no_config(folder))
        return None
    except ValueError as error:
        problems.append(f"config.json is not JSON ({error}); copy the model again")
        return None
    if not isinstance(config, dict):
        problems.append(f"config.json holds {type(config).__name__}, expected an object; copy the model again")
        return None
    return config


def _no_config(folder: Path) -> str:
    try:
        base = json.loads((folder / "adapter_config.json").read_bytes()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return "config.json is missing; the source must be the folder of a Hugging Face model"
    return f"it is an adapter, not a model; name its base model ({base or 'see adapter_config.json'}), or merge the two first"


def config_problems(config: Config, spec: FineTuneJobSpec) -> Iterator[str]:
    """Everything in config.json that training would fail on."""
    # Code that the model brings is told of by the code check, and is of an architecture that nobody knows.
    if "auto_map" not in config:
        yield from _architecture_problems(config)
    yield from _quantization_problems(config)
    yield from _context_problems(config, spec)


def _architecture_problems(config: Config) -> Iterator[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = {
        name
        for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        for name in ([names] if isinstance(names, str) else names)
    }
    architectures = config.get("architectures") or []
    if not any(name in known for name in architectures):
        found = ", ".join(map(str, architectures)) or "none"
        yield (
            f"config.json names architecture {found}, expected a causal language model that transformers knows (...ForCausalLM); "
            "use one"
        )


def _quantization_problems(config: Config) -> Iterator[str]:
    for key, quantization in settings_of(config):
        if key in ("quantization_config", "compression_config") and quantization:
            how = quantization.get("quant_method") if isinstance(quantization, dict) else None
            yield (
                f"config.json has {key} ({how or 'of an unknown method'}): the weights are quantised already, expected "
                "16- or 32-bit ones; use the original model, and method QLoRA to quantise it"
            )


_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")


def _context_problems(config: Config, spec: FineTuneJobSpec) -> Iterator[str]:
    context, wanted = context_length(config), spec.tokenization.cutoff_len
    if context is not None and wanted > context:
        yield (
            f"spec.tokenization.cutoffLen: {wanted} is more than the {context} positions of the model (config.json); "
            f"set {context} or less, or use a model with a longer context"
        )


def context_length(config: Config) -> int | None:
    """Tokens that the model can see at once, rotary scaling taken into account; None where config.json does not say."""
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else None
    both = {**config, **(text or {})}
    length: int | None = next((both[key] for key in _LENGTHS if isinstance(both.get(key), int) and both[key] > 0), None)
    scaling = both.get("rope_scaling") or both.get("rope_parameters")
    if length is None or not isinstance(scaling, dict) or not isinstance(factor := scaling.get("factor"), int | float):
        return length
    original = scaling.get("original_max_position_embeddings")
    kind = scaling.get("rope_type") or scaling.get("type")
    # yarn and llama3 name the length that the factor counts from; the older kinds scale what the model has.
    if isinstance(original, int):
        return max(length, int(original * factor))
    return int(length * factor) if kind in ("linear", "dynamic") else length
