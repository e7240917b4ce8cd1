"""The two halves of a transformer's layer, attention and gated MLP, each as one autograd function around joined weights.

Written by hand, the backward pass keeps what it needs and no more, makes the cheap parts again, and hands each product its
operands where they are. The norm before a half and the sum after it are part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune_trainer.kernels.documents import Documents
from finetune_trainer.kernels.joined_linear import JoinedLinear
from finetune_trainer.kernels.operations import Operations


@dataclass(frozen=True, slots=True)
class Norm:
    """An RMSNorm."""

    gain: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Heads:
    """Shape of an attention, and the norms of its heads where it has them (Qwen3)."""

    queries: int
    keys: int
    size: int
    scale: float
    query_norm: Norm | None = None
    key_norm: Norm | None = None

    def rotated(self, raw: Tensor, cos: Tensor, sin: Tensor, operations: Operations) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (tokens, heads, size) of ``raw`` (tokens, all heads' numbers).

        Without norms they lie in ``raw``, which is then rotated itself.
        """
        if self.query_norm is None or self.key_norm is None:
            both = self._split(raw, self.queries + self.keys)[0]
            operations.rotate(both, both, cos, sin, None, 0.0)
            return self._parts(raw)
        query, key, value = self._parts(raw)
        turned = raw.new_empty(len(raw), self.queries + self.keys, self.size)
        of_query, of_key = torch.split(turned, [self.queries, self.keys], dim=1)
        operations.rotate(query, of_query, cos, sin, self.query_norm.gain, self.query_norm.eps)
        operations.rotate(key, of_key, cos, sin, self.key_norm.gain, self.key_norm.eps)
        return of_query, of_key, value

    def rotated_again(
        self, raw: Tensor, cos: Tensor, sin: Tensor, operations: Operations
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What ``rotated`` gave before, for the same ``raw``."""
        return self._parts(raw) if self.query_norm is None else self.rotated(raw, cos, sin, operations)

    def rotate_back(
        self,
        grads: tuple[Tensor, Tensor, Tensor],
        raw: Tensor,
        out: Tensor,
        cos: Tensor,
        sin: Tensor,
        operations: Operations,
    ) -> None:
        """Write the gradient of ``raw`` to ``out``, from those of queries, keys and values."""
        query, key, _ = self._parts(raw)
        to_query, to_key, to_value = self._parts(out)
        for grad, x, to, before in (
            (grads[0], query, to_query, self.query_norm),
            (grads[1], key, to_key, self.key_norm),
        ):
            gain, eps = (None, 0.0) if before is None else (before.gain, before.eps)
            operations.rotate_backward(grad, x, to, cos, sin, gain, eps)
        operations.copy(grads[2].flatten(1), to_value.flatten(1))

    def _parts(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self._split(raw, self.queries, self.keys)
        return query, key, value

    def _split(self, raw: Tensor, *heads: int) -> list[Tensor]:
        every: Tensor = raw.unflatten(1, (-1, self.size))  # type: ignore[no-untyped-call]
        return list(torch.split(every, [*heads, every.shape[1] - sum(heads)], dim=1))


@dataclass(frozen=True, slots=True)
class AttentionHalf:
    """h + attention(norm(h))."""

    operations: Operations
    norm: Norm
    heads: Heads
    into: JoinedLinear
    """Queries, keys and values."""
    out: JoinedLinear

    def __call__(self, hidden: Tensor, documents: Documents, cos: Tensor, sin: Tensor) -> Tensor:
        """``hidden`` is (tokens, width); ``cos`` and ``sin`` (tokens, head size)."""
        trained = [*self.into.trained, *self.out.trained]
        return _Attention.apply(hidden, self, documents, cos, sin, self.norm.gain, *trained)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class GatedHalf:
    """h + down(silu(gate) · up), of norm(h)."""

    operations: Operations
    norm: Norm
    into: JoinedLinear
    """Gate and up."""
    out: JoinedLinear

    def __call__(self, hidden: Tensor) -> Tensor:
        """``hidden`` is (tokens, width)."""
        return _Gated.apply(hidden, self, self.norm.gain, *self.into.trained, *self.out.trained)  # type: ignore[no-any-return]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, half: AttentionHalf, documents: Documents, cos: Tensor, sin: Tensor, *_: Tensor
    ) -> Tensor:
        x, rstd = _normed(hidden, half)
        raw = half.into.forward(x)
        inputs = half.heads.rotated(raw, cos, sin, half.operations)
        seen, state = half.operations.attend(*inputs, documents, half.heads.scale)
        result, low = half.out.forward_narrow(seen.flatten(1))
        ctx.save_for_backward(hidden, rstd, _kept(x, half), raw, seen, low, cos, sin, *state)
        ctx.half, ctx.documents = half, documents
        return _sum(result, hidden)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        hidden, rstd, kept, raw, seen, low, cos, sin, *state = ctx.saved_tensors
        half: AttentionHalf = ctx.half
        grad = grad.contiguous()
        heads, into, out = half.heads, half.into, half.out
        given = _widened(grad, half)
        of_seen = out.backward(given)
        of_out = out.gradients(seen.flatten(1), low, given)
        inputs = heads.rotated_again(raw, cos, sin, half.operations)
        grads = half.operations.attend_backward(
            of_seen.view(seen.shape), inputs, seen, tuple(state), ctx.documents, heads.scale
        )
        of_raw = into.wide_output(len(hidden))
        heads.rotate_back(grads, raw, of_raw[:, : into.outputs], cos, sin, half.operations)
        of_hidden, of_gain, of_into = _through_norm(ctx.needs_input_grad[0], half, grad, hidden, rstd, kept, of_raw)
        return of_hidden, None, None, None, None, of_gain, *of_into, *of_out


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, half: GatedHalf, *_: Tensor) -> Tensor:
        x, rstd = _normed(hidden, half)
        gate_up = half.into.forward(x)
        wide = half.out.wide_input(len(hidden))
        half.operations.gate(gate_up, wide[:, : half.out.inputs])
        result = half.out.forward(wide)
        ctx.save_for_backward(hidden, rstd, _kept(x, half), gate_up, wide[:, half.out.inputs :].clone())
        ctx.half = half
        return _sum(result, hidden)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        hidden, rstd, kept, gate_up, low = ctx.saved_tensors
        half: GatedHalf = ctx.half
        grad = grad.contiguous()
        into, out = half.into, half.out
        given = _widened(grad, half)
        middle = out.backward(given)
        of_gate_up = into.wide_output(len(hidden))
        half.operations.gate_backward(middle, gate_up, of_gate_up[:, : into.outputs])
        of_out = out.gradients(middle, low, given)
        del middle, given
        of_hidden, of_gain, of_into = _through_norm(ctx.needs_input_grad[0], half, grad, hidden, rstd, kept, of_gate_up)
        return of_hidden, None, of_gain, *of_into, *of_out


def _normed(hidden: Tensor, half: AttentionHalf | GatedHalf) -> tuple[Tensor, Tensor]:
    """The norm of ``hidden`` in memory that the first product reads, and what its backward pass needs."""
    x = half.into.wide_input(len(hidden))
    return x, half.operations.norm(hidden, half.norm.gain, half.norm.eps, x[:, : half.into.inputs])


def _kept(x: Tensor, half: AttentionHalf | GatedHalf) -> Tensor | None:
    """``x`` for the backward pass; None where that is to make it again, as memory is short where all weights are trained."""
    return None if half.into.learns else x


def _through_norm(
    wanted: bool,
    half: AttentionHalf | GatedHalf,
    grad: Tensor,
    hidden: Tensor,
    rstd: Tensor,
    kept: Tensor | None,
    of_into: Tensor,
) -> tuple[Tensor | None, Tensor | None, list[Tensor]]:
    """Gradients of the half's input and gain, where ``wanted`` and trained, and of what is trained in ``into``."""
    into, of_hidden, of_gain = half.into, None, None
    if wanted or half.norm.gain.requires_grad:
        of_x = into.backward(of_into)
        of_hidden, of_gain = half.operations.norm_backward(of_x, hidden, half.norm.gain, rstd, grad)
    else:
        into.fill(of_into)
    x = _normed(hidden, half)[0] if kept is None else kept
    found = into.gradients(x[:, : into.inputs], x[:, into.inputs :], of_into)
    return of_hidden, of_gain, found


def _widened(grad: Tensor, half: AttentionHalf | GatedHalf) -> Tensor:
    wide = half.out.wide_output(len(grad))
    half.operations.copy(grad, wide[:, : half.out.outputs])
    return wide


def _sum(result: Tensor, hidden: Tensor) -> Tensor:
    return result.add_(hidden) if result.dtype == hidden.dtype else hidden + result
