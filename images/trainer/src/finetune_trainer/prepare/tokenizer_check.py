"""What can be wrong with a base model's tokenizer and its chat template."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_operator.api.bounded import LimitReached
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.tokenization import Tokenization
from finetune_trainer.chat_rendering import render_chat
from finetune_trainer.prepare.tokenizer import load_tokenizer
from finetune_trainer.templates import AUTO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LONGEST_TEMPLATE = 64 << 10
_TEMPLATE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
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
    # Several have names, which files are named after when the tokenizer is saved (CVE-2026-9856).
    templates = template if isinstance(template, dict) else {"default": template}
    if strange := sorted(name for name in templates if not _TEMPLATE_NAME.fullmatch(name)):
        yield f"a chat template is named {strange[0]!r}, expected letters, digits, _ and - only; rename it, or {_NAME_ONE}"
        return
    longest = max(map(len, templates.values()))
    if longest > _LONGEST_TEMPLATE:
        yield f"the chat template has {longest} characters, expected {_LONGEST_TEMPLATE} at most; {_NAME_ONE}"
        return
    if any(_raises_to_a_power(text) for text in templates.values()):
        yield f"the chat template raises to a power (**), which no limit would end; take that out, or {_NAME_ONE}"
        return
    try:
        render_chat(tokenizer, _PROBE)
    # Jinja's errors, and whatever else the template's own code comes to.
    except Exception as error:
        cause = (str(error).splitlines() or [""])[0]
        yield f"the chat template cannot be rendered ({type(error).__name__}: {cause}); correct it, or {_NAME_ONE}"
        return
    yield from _endless_templates(tokenizer, {name: text for name, text in templates.items() if name != "default"})


def _raises_to_a_power(template: str) -> bool:
    """Python computes a power to its end before it looks at any timer, and jinja does so while it compiles."""
    from jinja2 import Environment, TemplateError

    # Read into words, never rendered, so there is nothing to escape.
    words = Environment()  # noqa: S701 # nosec B701
    try:
        return any(kind == "operator" and text == "**" for _, kind, text in words.lex(template))
    except TemplateError:
        return False  # said when it is rendered


def _endless_templates(tokenizer: PreTrainedTokenizerBase, others: Mapping[str, str]) -> Iterator[str]:
    """Those that are not the default are for tools or documents, and may refuse a chat; but whoever serves can call them."""
    for name, text in others.items():
        try:
            render_chat(tokenizer, _PROBE, chat_template=text)
        except LimitReached as error:
            yield f"the chat template {name!r} cannot be rendered (LimitReached: {error}); correct it, or {_NAME_ONE}"
        except Exception:  # noqa: S112 - see above
            continue
