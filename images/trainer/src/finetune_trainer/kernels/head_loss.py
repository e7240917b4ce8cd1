"""Cross entropy of the tokens that are learnt, without ever holding the logits of all tokens (as Liger does, arXiv 2410.10989)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

CHUNK = 2048
"""Tokens whose logits exist at a time: 1.2 GB in float32 for a vocabulary of 152,064."""


class HeadLoss(torch.autograd.Function):
    """Sum of the cross entropies; gradients are made on the way forward, while the logits are there."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """``hidden`` (tokens, size), ``weight`` (vocabulary, size), ``targets`` (tokens). Returns a float32 scalar."""
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden)
        learns_weight = ctx.needs_input_grad[1]
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if learns_weight else None
        for begin in range(0, len(hidden), CHUNK):
            span = slice(begin, begin + CHUNK)
            grad_logits = _chunk(hidden[span], weight, targets[span], total)
            torch.mm(grad_logits, weight.to(hidden.dtype), out=grad_hidden[span])
            if grad_weight is not None:
                grad_weight += grad_logits.t() @ hidden[span]
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Scale what the forward pass made."""
        grad_hidden, grad_weight = ctx.saved_tensors
        of_weight = None if grad_weight is None else (grad_weight * grad).to(ctx.weight_dtype)
        return grad_hidden * grad.to(grad_hidden.dtype), of_weight, None


def _chunk(hidden: Tensor, weight: Tensor, targets: Tensor, total: Tensor) -> Tensor:
    """Add the chunk's loss to ``total``; return the gradient of its logits, in the number format of ``hidden``."""
    logits = (hidden @ weight.to(hidden.dtype).t()).float()
    largest = torch.logsumexp(logits, dim=-1, keepdim=True)
    rows = torch.arange(len(targets), device=targets.device)
    total += (largest.squeeze(-1) - logits[rows, targets]).sum()
    gradient = logits.sub_(largest).exp_()
    gradient[rows, targets] -= 1
    return gradient.to(hidden.dtype)


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Summed cross entropy. ``hidden`` (tokens, size) predicts ``targets`` (tokens) through ``weight`` (vocabulary, size)."""
    if torch.is_grad_enabled():
        return HeadLoss.apply(hidden, weight, targets)  # type: ignore[no-any-return]
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for begin in range(0, len(hidden), CHUNK):
        span = slice(begin, begin + CHUNK)
        logits = (hidden[span] @ weight.to(hidden.dtype).t()).float()
        total += cross_entropy(logits, targets[span], reduction="sum")
    return total
