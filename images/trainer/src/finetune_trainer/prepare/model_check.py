"""Checks of the base model that need no GPU: everything that would stop a training pod later, in one pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.prepare.code_check import code_problems
from finetune_trainer.prepare.config_check import config_problems, read_config
from finetune_trainer.prepare.skeleton import Shapes, build_skeleton, mismatches
from finetune_trainer.prepare.targets import quantization_problems, target_problems
from finetune_trainer.prepare.tokenizer_check import read_tokenizer, tokenizer_problems
from finetune_trainer.prepare.weights import WeightsError, embedding_rows, read_shapes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_model(folder: Path, spec: FineTuneJobSpec) -> PreTrainedTokenizerBase:
    """Check the model and return its tokenizer. Raises StageFailure (MODEL_UNUSABLE) with every problem found."""
    tokenizer, failure = inspect_model(folder, spec)
    if failure is not None or tokenizer is None:
        raise failure or _unusable(spec, [])
    return tokenizer


def inspect_model(folder: Path, spec: FineTuneJobSpec) -> tuple[PreTrainedTokenizerBase | None, StageFailure | None]:
    """The model's tokenizer, where it can be read, and every problem found, if there is any."""
    problems: list[str] = []
    config = read_config(folder, problems)
    code = list(code_problems(folder))
    about_config = [*code, *([] if config is None else config_problems(config, spec))]
    problems += about_config
    shapes = _read_weights(folder, problems)
    tokenizer = None if code else read_tokenizer(folder, problems)
    if tokenizer is not None:
        rows = embedding_rows(shapes)
        embedded = rows if rows is not None else (config or {}).get("vocab_size")
        problems += tokenizer_problems(tokenizer, spec, embedded if isinstance(embedded, int) else None)
    if config is not None and all(problem.startswith("spec.") for problem in about_config):
        problems += _skeleton_problems(folder, spec, shapes)
    return tokenizer, _unusable(spec, problems) if problems else None


def check_tokenizer(folder: Path, spec: FineTuneJobSpec) -> PreTrainedTokenizerBase:
    """Like ``check_model``, of the tokenizer alone: no weights need to be there."""
    problems = list(code_problems(folder))
    tokenizer = None if problems else read_tokenizer(folder, problems)
    if tokenizer is not None:
        problems += tokenizer_problems(tokenizer, spec, None)
    if problems or tokenizer is None:
        raise _unusable(spec, problems)
    return tokenizer


def refuse_new_tokens(tokenizer: PreTrainedTokenizerBase, folder: Path, spec: FineTuneJobSpec) -> None:
    """Raise StageFailure where the job's template has added tokens that the model's embedding has no rows for."""
    rows = embedding_rows(read_shapes(folder))
    if rows is not None and len(tokenizer) > rows:
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            f"spec.tokenization.template: {spec.tokenization.template} adds tokens to the tokenizer, which then has "
            f"{len(tokenizer)}, more than the {rows} rows of the model's embedding; use Auto, or the template of the model's family.",
        )


def _unusable(spec: FineTuneJobSpec, problems: list[str]) -> StageFailure:
    """What the job asks for stands with its field, what is wrong with the model below the model's."""
    asked = [text for text in problems if text.startswith("spec.")]
    found = [f"  {text}" for text in problems if not text.startswith("spec.")]
    if found:
        asked.append("\n".join([f"spec.model.source: {spec.model.source} cannot be fine-tuned:", *found]))
    return StageFailure(ExitCode.MODEL_UNUSABLE, "\n".join(asked))


def _read_weights(folder: Path, problems: list[str]) -> Shapes:
    try:
        return read_shapes(folder)
    except WeightsError as error:
        problems += error.problems
        return {}


def _skeleton_problems(folder: Path, spec: FineTuneJobSpec, shapes: Shapes) -> list[str]:
    problems: list[str] = []
    model = build_skeleton(folder, problems)
    if model is None:
        return problems
    if shapes:
        problems += mismatches(model, shapes)
    return [*problems, *target_problems(model, spec), *quantization_problems(model, spec)]
