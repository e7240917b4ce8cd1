"""Which modules of a model get an adapter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALL_LINEAR = "all"
"""Value of lora.targetModules that stands for every linear layer but the head."""


def last_parts(names: Iterable[str]) -> set[str]:
    """Last components of dotted module names; numbers (members of a list of modules) are left out."""
    return {part for name in names if not (part := name.rpartition(".")[2]).isdigit()}


def linear_modules(model: PreTrainedModel) -> list[str]:
    """Last parts of the names of all linear layers but the output head, as LLaMA-Factory's ``lora_target: all``.

    A class counts as linear by its name, so that quantised layers do, too.
    """
    head = model.get_output_embeddings()
    linear = (
        name for name, module in model.named_modules() if "Linear" in type(module).__name__ and module is not head
    )
    return sorted(last_parts(linear))
