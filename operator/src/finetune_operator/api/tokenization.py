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


class Compatibility(enum.StrEnum):
    """Whose rules count where this project's own are better."""

    NONE = "None"
    """This project's own."""
    LLAMA_FACTORY = "LLaMAFactory"
    """LLaMA-Factory's to the token, faults included; report.json counts what each of them did to the rows."""


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
    default_system: str | None = Field(default=None, min_length=1, max_length=16384)
    """System prompt of conversations that have none, in training and in serving. Default: the template's own."""
    cutoff_len: int = Field(default=2048, ge=16, le=1_048_576)
    """Longest sequence, in tokens."""
    packing: Packing = Packing.SEGMENTED
    """How short conversations share a sequence."""
    train_on_prompt: bool = False
    """Learn the user's turns as well."""
    mask_history: bool = False
    """Learn only the last answer of a conversation."""
    compatibility: Compatibility = Compatibility.NONE
    """LLaMAFactory repeats its handling of rows and templates exactly; `finetune convert` sets it."""

    @property
    def is_llama_factory(self) -> bool:
        """Whether LLaMA-Factory's rules count."""
        return self.compatibility is Compatibility.LLAMA_FACTORY
