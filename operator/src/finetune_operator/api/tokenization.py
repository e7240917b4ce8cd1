"""From rows to tokens: template, length, packing and which tokens are learnt."""

from __future__ import annotations

import enum

from pydantic import Field

from finetune_operator.api.base import ApiModel, Rule


class Packing(enum.StrEnum):
    """How short conversations share a sequence."""

    NONE = "None"
    """One conversation a sequence, padded."""
    SEGMENTED = "Segmented"
    """Several conversations a sequence, none sees another (LLaMA-Factory's neat_packing)."""
    PLAIN = "Plain"
    """Several conversations a sequence that see each other (LLaMA-Factory's packing)."""


class Tokenization(ApiModel):
    """How conversations become token ids and labels."""

    rules = (
        Rule(
            cel="!(self.trainOnPrompt && self.maskHistory)",
            message="trainOnPrompt and maskHistory exclude each other",
            holds=lambda tokenization: not (tokenization.train_on_prompt and tokenization.mask_history),
            field=".maskHistory",
        ),
    )

    template: str = Field(default="Auto", min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Chat template: Auto for the model's own, or a name of LLaMA-Factory's such as qwen, yi, llama3 or default."""
    cutoff_len: int = Field(default=2048, ge=16, le=1_048_576)
    """Longest sequence, in tokens."""
    packing: Packing = Packing.SEGMENTED
    """How short conversations share a sequence."""
    train_on_prompt: bool = False
    """Learn the user's turns as well."""
    mask_history: bool = False
    """Learn only the last answer of a conversation."""
