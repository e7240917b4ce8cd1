"""Causal attention over documents that lie one behind the other, with no padding and no mask (FlashAttention-2, arXiv 2307.08691)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from finetune_trainer.kernels.documents import LONGEST, STARTS

NAME = "finetune_documents"
"""What transformers calls this attention by."""


def register() -> None:
    """Make the attention known to transformers. Harmless to repeat."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, documents_attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def documents_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention within each document. ``query``, ``key`` and ``value`` are (1, heads, tokens, head size).

    Returns (1, tokens, heads, head size). Raises KeyError without ``document_starts``.
    """
    starts: Tensor = options[STARTS]
    longest: int = options[LONGEST]
    if query.is_cuda:
        return _flash(query, key, value, starts, longest, scaling, dropout), None
    return one_by_one(query, key, value, starts, scaling, dropout), None


def _flash(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, scale: float | None, dropout: float
) -> Tensor:
    # Tokens first: the kernel reads any strides as long as a head's numbers are side by side.
    flat = [part[0].transpose(0, 1) for part in (query, key, value)]
    done: Tensor = torch.ops.aten._flash_attention_forward(
        *flat, starts, starts, longest, longest, dropout, True, False, scale=scale
    )[0]
    return done.unsqueeze(0)


def one_by_one(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, scale: float | None, dropout: float
) -> Tensor:
    """Attention without the kernel, document by document; shapes as in ``documents_attention``."""
    done = [
        functional.scaled_dot_product_attention(
            query[:, :, begin:end],
            key[:, :, begin:end],
            value[:, :, begin:end],
            dropout_p=dropout,
            is_causal=True,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for begin, end in pairwise(starts.tolist())
    ]
    return torch.cat(done, dim=2).transpose(1, 2)
