"""The template of a job, and the tokenizer and encoder that go with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from finetune_operator.api.bounded import LimitReached
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_trainer.chat_template import with_default_system
from finetune_trainer.prepare.encoders import ChatTemplateEncoder, Encoder, TemplateEncoder
from finetune_trainer.prepare.tokenizer import apply_template, fix_padding
from finetune_trainer.templates import AUTO, TEMPLATES, Template
from finetune_trainer.templates.parsed import parse_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def template_of(run: RunConfig, tokenizer: PreTrainedTokenizerBase) -> Template | None:
    """The named template, or None where the job uses the model's own, rendered whole."""
    template, prompt = _template_of(run, tokenizer), run.spec.tokenization.default_system
    return replace(template, default_system=prompt) if template is not None and prompt is not None else template


def _template_of(run: RunConfig, tokenizer: PreTrainedTokenizerBase) -> Template | None:
    rules = run.spec.tokenization
    if rules.template != AUTO or not rules.is_llama_factory:
        return TEMPLATES.get(rules.template)
    if not tokenizer.chat_template:
        return TEMPLATES["empty"]
    try:
        return parse_template(tokenizer)
    except LimitReached as error:
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"spec.model.source: {run.spec.model.source}: the chat template does not come to an end ({error}); correct it, or "
            "set spec.tokenization.template to the one of the model's family.",
        ) from error


def set_up_tokenizer(tokenizer: PreTrainedTokenizerBase, run: RunConfig) -> None:
    """Make the model's tokenizer the job's. Raises StageFailure where the template does not suit it."""
    template, rules = template_of(run, tokenizer), run.spec.tokenization
    if template is not None and (rules.template != AUTO or not tokenizer.chat_template):
        apply_template(tokenizer, template, adds_tokens=rules.is_llama_factory)
    elif rules.default_system is not None and tokenizer.chat_template:
        tokenizer.chat_template = with_default_system(tokenizer.chat_template, rules.default_system)
    fix_padding(tokenizer)


def encoder_of(run: RunConfig, tokenizer: PreTrainedTokenizerBase, template: Template | None) -> Encoder:
    """What encodes the job's rows, with a tokenizer that is set up."""
    if template is None:
        return ChatTemplateEncoder(tokenizer)
    return TemplateEncoder(tokenizer, template, last_thought_only=run.spec.tokenization.mask_history)


def header_of(tokenizer: PreTrainedTokenizerBase, template: Template | None) -> list[int]:
    """Tokens of what stands between a user's text and the answer, the same in every turn."""
    if template is not None:
        return TemplateEncoder(tokenizer, template).header()
    return ChatTemplateEncoder(tokenizer).header()
