"""Rows that are well formed and not what supervised fine-tuning learns from: told by name, never left out in silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_operator.api.dataset import Format

NO_TOOLS = (
    "template Auto, the model's own, does not show them all; name a template in tokenization.template, such as qwen, "
    "llama3, mistral or glm4, or remove the row"
)

_PREFERENCE = "preference training (DPO, KTO, reward models) is not in this version"


def preference_problem(row: Mapping[str, Any]) -> str | None:
    """What to say of a row of a ranking dataset, or None for another one."""
    if "chosen" in row and "rejected" in row:
        return (
            f"is a preference row (columns chosen and rejected): {_PREFERENCE}; use a dataset of conversations, "
            "or make one of the chosen answers"
        )
    if is_tagged_preference(row):
        return f"is a preference row (column kto_tag): {_PREFERENCE}; use a dataset of conversations"
    return None


def is_tagged_preference(row: Mapping[str, Any]) -> bool:
    """Whether the row is of a KTO dataset: well formed as a conversation, and its answer may be one not to learn."""
    return isinstance(row.get("kto_tag"), bool)


def meant_format(row: Mapping[str, Any]) -> Format | None:
    """The format whose usual columns the row has, for a row that lacks those of its dataset's format."""
    if isinstance(row.get("messages"), list):
        return Format.MESSAGES
    if isinstance(row.get("conversations"), list):
        return Format.SHAREGPT
    return Format.ALPACA if "instruction" in row and "output" in row else None
