"""What a job may ask for that this version cannot do: said before anything is fetched, all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_operator.api.source import Scheme, parse_source
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.tokenization import Tokenization
from finetune_operator.api.training import Precision
from finetune_trainer.deepspeed_conflicts import deepspeed_conflicts
from finetune_trainer.prepare.serving_check import serving_problems
from finetune_trainer.templates import AUTO, TEMPLATES


def check_supported(run: RunConfig) -> None:
    """Raise StageFailure with every field that asks for more than this version does, or contradicts another one."""
    problems = [
        *_source_problems(run),
        *_field_problems(run),
        *deepspeed_conflicts(run.spec),
        *serving_problems(run.spec),
    ]
    if problems:
        raise StageFailure(ExitCode.INVALID_SPEC, "\n".join(problems))


def _source_problems(run: RunConfig) -> Iterator[str]:
    source = run.spec.model.source
    if parse_source(source).scheme is Scheme.CONFIG_MAP:
        yield f"spec.model.source: {source}: a ConfigMap is too small for a model; copy it to a claim and write pvc://CLAIM/PATH"


def _field_problems(run: RunConfig) -> Iterator[str]:
    yield from _template_problems(run.spec.tokenization)
    if run.spec.training.precision is Precision.FP8_BASE and (reason := _unrounded(run.spec)):
        yield f"spec.training.precision: FP8Base is for the fused kernels, but {reason}; use BF16, or change that"


def _unrounded(spec: FineTuneJobSpec) -> str | None:
    """Why the base cannot be rounded to float8, as far as the job itself tells."""
    # PyTorch takes seconds to import, which no other job has to wait for here.
    from finetune_trainer.train.device import Device
    from finetune_trainer.train.fused import PLAIN_ADAPTERS, unsuited_job

    lora = spec.effective_lora
    if float(lora.dropout) or lora.dora or lora.modules_to_save:
        return f"its adapters are not plain ({PLAIN_ADAPTERS})"
    return unsuited_job(spec, Device(is_gpu=True, autocast=Precision.BF16))


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


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), TEMPLATES, n=5)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{meant}expected {AUTO} (the model's own) or one of {', '.join(sorted(TEMPLATES))}"
