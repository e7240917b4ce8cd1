"""Cross entropy of the tokens that are learnt, without ever holding the logits of all tokens (as Liger does, arXiv 2410.10989)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from finetune_trainer.kernels.operations import Operations

CHUNK = 2048
"""Tokens whose logits exist at a time: 0.6 GB in 16 bits for a vocabulary of 152,064."""
LARGE_CHUNK = 8192
"""As many where the head is trained: each further chunk adds a gradient of the head's own size to the first one's."""


class HeadLoss(torch.autograd.Function):
    """Sum of the cross entropies; gradients are made on the way forward, while the logits are there."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, operations: Operations) -> Tensor:
        """``hidden`` (tokens, size), ``weight`` (vocabulary, size), ``targets`` (tokens). Returns a float32 scalar."""
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden)
        learns_weight = ctx.needs_input_grad[1]
        grad_weight: Tensor | None = None
        computed = weight.to(hidden.dtype)
        chunk = LARGE_CHUNK if learns_weight else CHUNK
        for begin in range(0, len(hidden), chunk):
            span = slice(begin, begin + chunk)
            losses, grad_logits = operations.loss(hidden[span] @ computed.t(), targets[span])
            total += losses.sum()
            torch.mm(grad_logits, computed, out=grad_hidden[span])
            if learns_weight:
                of_chunk = grad_logits.t() @ hidden[span]
                # Several are added up in float32.
                grad_weight = of_chunk if grad_weight is None else grad_weight.float() + of_chunk
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Scale what the forward pass made."""
        grad_hidden, grad_weight = ctx.saved_tensors
        of_weight = None if grad_weight is None else grad_weight.mul_(grad).to(ctx.weight_dtype)
        return grad_hidden * grad.to(grad_hidden.dtype), of_weight, None, None


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor, operations: Operations) -> Tensor:
    """Summed cross entropy. ``hidden`` (tokens, size) predicts ``targets`` (tokens) through ``weight`` (vocabulary, size)."""
    if torch.is_grad_enabled():
        return HeadLoss.apply(hidden, weight, targets, operations)  # type: ignore[no-any-return]
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    computed = weight.to(hidden.dtype)
    for begin in range(0, len(hidden), CHUNK):
        span = slice(begin, begin + CHUNK)
        logits = (hidden[span] @ computed.t()).float()
        total += cross_entropy(logits, targets[span], reduction="sum")
    return total
