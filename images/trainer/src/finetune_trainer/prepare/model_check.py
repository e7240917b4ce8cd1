"""Checks of the base model that need no GPU: everything that would stop a training pod later, in one pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.prepare.targets import target_problems
from finetune_trainer.prepare.tokenizer import load_tokenizer
from finetune_trainer.prepare.weights import WeightsError, embedding_rows, read_shapes
from finetune_trainer.templates import AUTO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_model(folder: Path, spec: FineTuneJobSpec) -> PreTrainedTokenizerBase:
    """Check the model and return its tokenizer. Raises StageFailure (MODEL_UNUSABLE) with every problem found."""
    problems: list[str] = []
    config = _read_config(folder, problems)
    problems += _config_problems(config) if config else []
    shapes = _read_weights(folder, problems)
    tokenizer = _read_tokenizer(folder, problems)
    if tokenizer is not None:
        problems += _tokenizer_problems(tokenizer, spec, embedding_rows(shapes), config)
    if config and not problems:
        problems += target_problems(folder, spec)
    if problems or tokenizer is None:
        raise _unusable(spec, problems)
    return tokenizer


def check_tokenizer(folder: Path, spec: FineTuneJobSpec) -> PreTrainedTokenizerBase:
    """Like ``check_model``, of the tokenizer alone: no weights need to be there."""
    problems: list[str] = []
    tokenizer = _read_tokenizer(folder, problems)
    if tokenizer is not None:
        problems += _tokenizer_problems(tokenizer, spec, None, None)
    if problems or tokenizer is None:
        raise _unusable(spec, problems)
    return tokenizer


def _unusable(spec: FineTuneJobSpec, problems: list[str]) -> StageFailure:
    return StageFailure(
        ExitCode.MODEL_UNUSABLE,
        f"spec.model.source: {spec.model.source} cannot be fine-tuned:\n" + "\n".join(f"  {text}" for text in problems),
    )


def _read_config(folder: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        problems.append("config.json is missing; the source must be the folder of a Hugging Face model")
        return None
    except ValueError as error:
        problems.append(f"config.json is not JSON ({error}); copy the model again")
        return None
    return config


def _config_problems(config: dict[str, Any]) -> Iterator[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if "auto_map" in config:
        yield "config.json has auto_map: the model brings Python code, which is never run; use a model that transformers knows"
        return
    known = {
        name
        for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        for name in ([names] if isinstance(names, str) else names)
    }
    architectures = config.get("architectures") or []
    if not any(name in known for name in architectures):
        found = ", ".join(map(str, architectures)) or "none"
        yield f"config.json names architecture {found}, expected a causal language model that transformers knows (...ForCausalLM)"


def _read_weights(folder: Path, problems: list[str]) -> dict[str, tuple[int, ...]]:
    try:
        return read_shapes(folder)
    except WeightsError as error:
        problems += error.problems
        return {}


def _read_tokenizer(folder: Path, problems: list[str]) -> PreTrainedTokenizerBase | None:
    try:
        return load_tokenizer(folder)
    # transformers raises whatever the file's reader raises; all of it means the same here.
    except Exception as error:
        problems.append(
            f"the tokenizer does not load ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        )
        return None


def _tokenizer_problems(
    tokenizer: PreTrainedTokenizerBase, spec: FineTuneJobSpec, rows: int | None, config: dict[str, Any] | None
) -> Iterator[str]:
    if spec.tokenization.template == AUTO:
        if not tokenizer.chat_template:
            yield "the tokenizer has no chat template; set spec.tokenization.template to the one of the model's family"
        if not tokenizer.is_fast:
            yield "the tokenizer does not say where tokens stand in a text; set spec.tokenization.template to a named template"
    if tokenizer.eos_token_id is None:
        yield "the tokenizer has no end-of-sequence token; set eos_token in tokenizer_config.json"
    embedded = rows if rows is not None else (config or {}).get("vocab_size")
    if embedded is not None and len(tokenizer) > embedded:
        yield f"the tokenizer has {len(tokenizer)} tokens, more than the {embedded} rows of the embedding; they do not belong together"
