"""What a job may ask for that this version cannot do: said before anything is fetched, all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_operator.api.source import Scheme, parse_source
from finetune_operator.api.tokenization import Tokenization
from finetune_operator.api.training import Precision
from finetune_trainer.templates import AUTO, TEMPLATES

_DATASET_SCHEMES = (Scheme.HUGGING_FACE, Scheme.CLAIM, Scheme.CONFIG_MAP, Scheme.FILE)
_MODEL_SCHEMES = (Scheme.HUGGING_FACE, Scheme.CLAIM, Scheme.FILE)


def check_supported(run: RunConfig) -> None:
    """Raise StageFailure with every field that asks for more than this version does."""
    problems = [*_source_problems(run), *_field_problems(run)]
    if problems:
        raise StageFailure(ExitCode.INVALID_SPEC, "; ".join(problems))


def _source_problems(run: RunConfig) -> Iterator[str]:
    yield from _scheme_problem("spec.model.source", run.spec.model.source, _MODEL_SCHEMES)
    for index, dataset in enumerate(run.spec.datasets):
        yield from _scheme_problem(f"spec.datasets[{index}].source", dataset.source, _DATASET_SCHEMES)
    if run.spec.evaluation is not None and run.spec.evaluation.dataset is not None:
        yield from _scheme_problem(
            "spec.evaluation.dataset.source", run.spec.evaluation.dataset.source, _DATASET_SCHEMES
        )


def _scheme_problem(field: str, source: str, readable: tuple[Scheme, ...]) -> Iterator[str]:
    if parse_source(source).scheme not in readable:
        schemes = ", ".join(f"{scheme.value}://" for scheme in readable)
        yield f"{field}: {source} cannot be read by this version, which reads {schemes}; copy it to a claim and write pvc://CLAIM/PATH"


def _field_problems(run: RunConfig) -> Iterator[str]:
    yield from _template_problems(run.spec.tokenization)
    if run.spec.training.precision is Precision.FP8_BASE:
        yield "spec.training.precision: FP8Base is not in this version; use BF16"
    tracking = run.spec.tracking
    if tracking is not None and any((tracking.tensor_board, tracking.wandb, tracking.mlflow)):
        yield "spec.tracking: trackers are not in this version; remove it, trainer_log.jsonl has the same figures"


def _template_problems(tokenization: Tokenization) -> Iterator[str]:
    name = tokenization.template
    template = TEMPLATES.get(name)
    if template is None:
        if name != AUTO:
            yield f"spec.tokenization.template: {name} is unknown; {_suggestion(name)}"
        return
    if template.ends_once and tokenization.train_on_prompt:
        yield (
            f"spec.tokenization.trainOnPrompt: the template {name} labels the begin of a prompt with the end of the answer "
            "before it; remove trainOnPrompt, or use another template"
        )
    if template.thought is not None and tokenization.mask_history:
        yield (
            f"spec.tokenization.maskHistory: the template {name} would have to take the thoughts out of earlier answers, "
            "which this version does not; remove maskHistory, or use a template without thoughts"
        )


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), TEMPLATES, n=5)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{meant}expected {AUTO} (the model's own) or one of {', '.join(sorted(TEMPLATES))}"
