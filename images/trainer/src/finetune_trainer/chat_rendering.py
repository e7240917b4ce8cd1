"""The one place where a model's own chat template runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_operator.api.bounded import bounded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render_chat(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], **options: Any) -> str:
    """The conversation as text. Raises LimitReached where the template does not come to an end, and whatever it raises."""
    with bounded():
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))
