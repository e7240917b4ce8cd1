"""The model's tokenizer, set up for the job's template the way LLaMA-Factory sets it up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_trainer.chat_rendering import render_chat
from finetune_trainer.chat_template import to_jinja
from finetune_trainer.templates import Special, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load without running code of the repository. Raises what transformers raises."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    # It warns of texts longer than the model takes; they are cut to cutoffLen, and counted in the report.
    logging.set_verbosity_error()
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def apply_template(tokenizer: PreTrainedTokenizerBase, template: Template, *, adds_tokens: bool = False) -> None:
    """Give the tokenizer the template's special tokens and chat template.

    Raises StageFailure where the tokenizer does not know the token that ends an answer; ``adds_tokens`` adds it instead, and
    the others that end one, as LLaMA-Factory does.
    """
    known = tokenizer.get_vocab()
    stops = [word for word in template.stop_words if adds_tokens or word in known]
    if template.stop_words and template.stop_words[0] not in stops:
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            f"spec.tokenization.template: {template.name} ends an answer with {template.stop_words[0]}, which the model's "
            "tokenizer does not know; use Auto, or the template of the model's family.",
        )
    if template.replaces_eos:
        tokenizer.add_special_tokens({"eos_token": stops.pop(0)})
    if stops:
        tokenizer.add_special_tokens({"additional_special_tokens": stops}, replace_extra_special_tokens=False)
    tokenizer.chat_template = to_jinja(template, special_tokens(tokenizer))


def fix_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Pad with the end-of-sequence token where the tokenizer has none of its own: padding is never learnt nor seen."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[Special, str]:
    """Text of the special tokens that the tokenizer has. One that it names but does not know would become plain text."""
    known = [special for special in Special if getattr(tokenizer, f"{special.value}_id") is not None]
    return {special: str(getattr(tokenizer, special.value)) for special in known}


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, template: Template | None) -> list[int]:
    """Tokens that end an answer. For the model's own template: the special token that it closes an answer with."""
    ids = {tokenizer.eos_token_id}
    if template is not None:
        known = tokenizer.get_vocab()
        ids |= {known[word] for word in template.stop_words if word in known}
    else:
        ids |= set(_closing_token(tokenizer))
    return sorted(identity for identity in ids if identity is not None)


_PROBE = "7f3a"


def _closing_token(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    probe = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": _PROBE}]
    _, _, closing = render_chat(tokenizer, probe).rpartition(_PROBE)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return [token for token in tokenizer(closing, add_special_tokens=False)["input_ids"] if token in special][:1]
