"""Where the documents of a pass begin."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

STARTS = "document_starts"
"""Argument of the model's forward: where each document starts, and the end of the last; int32, (documents + 1)."""
LONGEST = "longest_document"
"""Argument of the model's forward: length of the longest document, a plain number, so that no GPU is waited for."""


@dataclass(frozen=True, slots=True)
class Documents:
    """Both of them."""

    starts: Tensor
    longest: int
