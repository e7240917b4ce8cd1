"""What can be wrong with a base model's tokenizer and its chat template."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.tokenization import Tokenization
from finetune_trainer.prepare.tokenizer import load_tokenizer
from finetune_trainer.templates import AUTO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LONGEST_TEMPLATE = 64 << 10
_PROBE = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
_NAME_ONE = "set spec.tokenization.template to the one of the model's family"


def read_tokenizer(folder: Path, problems: list[str]) -> PreTrainedTokenizerBase | None:
    """The tokenizer; None, and why, where it does not load."""
    try:
        return load_tokenizer(folder)
    # transformers raises whatever the file's reader raises; all of it means the same here.
    except Exception as error:
        cause = (str(error).splitlines() or [""])[0]
        problems.append(
            f"the tokenizer does not load ({type(error).__name__}: {cause}); copy tokenizer.json and "
            "tokenizer_config.json again"
        )
        return None


def tokenizer_problems(
    tokenizer: PreTrainedTokenizerBase, spec: FineTuneJobSpec, embedded: int | None
) -> Iterator[str]:
    """Everything that training would fail on. ``embedded`` is the number of rows of the embedding, where it is known."""
    if spec.tokenization.template == AUTO:
        yield from _chat_template_problems(tokenizer, spec.tokenization)
    if not tokenizer("text", add_special_tokens=False)["input_ids"]:
        # transformers makes an empty tokenizer where it finds no file of one.
        yield "the tokenizer makes no tokens of a text, expected a vocabulary; copy tokenizer.json of the model"
    if tokenizer.eos_token_id is None:
        yield "the tokenizer has no end-of-sequence token; set eos_token in tokenizer_config.json"
    if embedded is not None and len(tokenizer) > embedded:
        yield (
            f"the tokenizer has {len(tokenizer)} tokens, more than the {embedded} rows of the embedding; they do not belong "
            "together: copy both from one model"
        )


def _chat_template_problems(tokenizer: PreTrainedTokenizerBase, rules: Tokenization) -> Iterator[str]:
    template = tokenizer.chat_template
    # LLaMA-Factory does without a template, and with a tokenizer that does not say where tokens stand.
    if not template:
        if not rules.is_llama_factory:
            yield f"the tokenizer has no chat template; {_NAME_ONE}"
        return
    if not tokenizer.is_fast and not rules.is_llama_factory:
        yield f"the tokenizer does not say where tokens stand in a text; {_NAME_ONE}"
    if isinstance(template, str) and len(template) > _LONGEST_TEMPLATE:
        yield f"the chat template has {len(template)} characters, expected {_LONGEST_TEMPLATE} at most; {_NAME_ONE}"
        return
    try:
        tokenizer.apply_chat_template(_PROBE, tokenize=False)
    # Jinja's errors, and whatever else the template's own code comes to.
    except Exception as error:
        cause = (str(error).splitlines() or [""])[0]
        yield f"the chat template cannot be rendered ({type(error).__name__}: {cause}); correct it, or {_NAME_ONE}"
