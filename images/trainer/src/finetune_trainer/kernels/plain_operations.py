"""The operations in plain PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from finetune_trainer.kernels.attention import one_by_one
from finetune_trainer.kernels.documents import Documents
from finetune_trainer.kernels.operations import State

_FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0
"""Of E4M3's numbers (arXiv 2209.05433)."""


class PlainOperations:
    """See ``Operations``; exact, and what the faster ones are compared with."""

    def copy(self, x: Tensor, out: Tensor) -> None:
        """As in Operations."""
        out.copy_(x)

    def norm(self, x: Tensor, gain: Tensor, eps: float, out: Tensor) -> Tensor:
        """As in Operations."""
        normed, rstd = _normed(x, eps)
        out.copy_(gain * normed.to(x.dtype))
        return rstd.squeeze(-1)

    def norm_backward(
        self, grad: Tensor, x: Tensor, gain: Tensor, rstd: Tensor, carried: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """As in Operations."""
        scale = rstd.unsqueeze(-1)
        normed, gained = x.float() * scale, grad.float() * gain.float()
        shared = (gained * normed).mean(-1, keepdim=True)
        of_x = (scale * (gained - normed * shared) + carried.float()).to(x.dtype)
        return of_x, (grad.float() * normed).sum(0).to(gain.dtype) if gain.requires_grad else None

    def gate(self, gate_up: Tensor, out: Tensor) -> None:
        """As in Operations."""
        gate, up = gate_up.chunk(2, dim=1)
        out.copy_(silu(gate) * up)

    def gate_backward(self, grad: Tensor, gate_up: Tensor, out: Tensor) -> None:
        """As in Operations."""
        gate, up = gate_up.float().chunk(2, dim=1)
        width, chance, given = gate.shape[1], gate.sigmoid(), grad.float()
        out[:, :width] = given * up * (chance + gate * chance * (1 - chance))
        out[:, width:] = given * gate * chance
        grad.copy_(gate * chance * up)

    def rotate(self, x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, gain: Tensor | None, eps: float) -> None:
        """As in Operations."""
        normed = x if gain is None else _normed(x, eps)[0].to(x.dtype) * gain
        out.copy_(_turned(normed, cos, sin))

    def rotate_backward(
        self, grad: Tensor, x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, gain: Tensor | None, eps: float
    ) -> None:
        """As in Operations."""
        given = _turned(grad, cos, -sin)
        if gain is not None:
            normed, rstd = _normed(x, eps)
            gained = given * gain
            given = rstd * (gained - normed * (gained * normed).mean(-1, keepdim=True))
        out.copy_(given)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, documents: Documents, scale: float
    ) -> tuple[Tensor, State]:
        """As in Operations."""
        return _attention((query, key, value), documents, scale), ()

    def attend_backward(
        self, grad: Tensor, inputs: State, done: Tensor, state: State, documents: Documents, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As in Operations."""
        with torch.enable_grad():
            leaves = tuple(part.detach().requires_grad_() for part in inputs)
            again = _attention(leaves, documents, scale)
        of_query, of_key, of_value = torch.autograd.grad(again, leaves, grad)
        return of_query, of_key, of_value

    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """As in Operations."""
        values, rows = logits.float(), torch.arange(len(targets), device=targets.device)
        whole = torch.logsumexp(values, dim=-1, keepdim=True)
        losses = whole.squeeze(-1) - values[rows, targets]
        gradient = values.sub_(whole).exp_()
        gradient[rows, targets] -= 1
        return losses, gradient.to(logits.dtype)

    def dequantize(self, weight: Any, out: Tensor) -> None:
        """As in Operations."""
        # Slow to import, and most jobs do without.
        from bitsandbytes.functional import dequantize_4bit

        out.copy_(dequantize_4bit(weight.data, weight.quant_state))

    def to_float8(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As in Operations."""
        scale = x.float().abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / LARGEST
        return (x.float() / scale).to(_FLOAT8), scale

    def float8_product(self, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
        """As in Operations."""
        return ((left[0].float() @ right[0].float().t()) * left[1] * right[1].t()).to(dtype)


def _normed(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    values = x.float()
    rstd = torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + eps)
    return values * rstd, rstd


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return x * cos.unsqueeze(1) + torch.cat([-high, low], dim=-1) * sin.unsqueeze(1)


def _attention(inputs: State, documents: Documents, scale: float) -> Tensor:
    query, key, value = (part.transpose(0, 1).unsqueeze(0) for part in inputs)
    return one_by_one(query, key, value, documents.starts, scale, 0.0)[0]
