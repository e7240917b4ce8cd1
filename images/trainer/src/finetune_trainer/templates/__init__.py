"""Chat templates by name: the exact pieces that LLaMA-Factory tokenises one by one.

Source of the slots: LLaMA-Factory 0.9.5, ``data/template.py``. Left out are templates for images and sound, and those
of models whose tokenizer is code of their repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from finetune_trainer.templates.chatml import CHATML
from finetune_trainer.templates.marked import MARKED
from finetune_trainer.templates.spelling import CONTENT, Piece, Slot, Special, Template
from finetune_trainer.templates.worded import WORDED

__all__ = ["AUTO", "CONTENT", "TEMPLATES", "Piece", "Slot", "Special", "Template"]

AUTO = "Auto"
TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {template.name: template for template in (*CHATML, *MARKED, *WORDED)}
)
