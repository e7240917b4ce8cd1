"""The kernels of ``finetune_trainer.kernels`` acted out: what they keep on a GPU, where the real ones run only there."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from finetune_trainer.kernels.documents import LONGEST, STARTS
from finetune_trainer.kernels.fused_model import causal_model, fuse
from finetune_trainer.kernels.operations import State

_ATTENTION = "finetune_documents_acted_out"


class _Attention(torch.autograd.Function):
    """FlashAttention-2 keeps its input, its output and a number a head and token (arXiv 2307.08691)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        heads, tokens, _ = query.shape[1:]
        done = query.new_empty(1, tokens, heads, value.shape[-1])
        ctx.save_for_backward(query, key, value, done, query.new_empty(heads, tokens, dtype=torch.float32))
        return done

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        query, key, value, _, _ = ctx.saved_tensors
        return _attention_gradients(query, key, value)


def _attention_gradients(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Where heads share keys, each head's share of the gradient is made apart; the query's is summed in float32.
    apart = [query.new_empty(query.shape) for _ in range(2)]
    summed = query.new_empty(query.shape, dtype=torch.float32)
    del apart, summed
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


class _Norm(torch.autograd.Function):
    """Keeps its input and a number a token."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, hidden.new_empty(hidden.shape[:-1], dtype=torch.float32))
        return torch.empty_like(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        hidden, weight, _ = ctx.saved_tensors
        return torch.empty_like(hidden), torch.empty_like(weight) if ctx.needs_input_grad[1] else None


class _Gate(torch.autograd.Function):
    """Keeps its two inputs, and writes their gradients over them."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return torch.empty_like(gate)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        return gate.detach(), up.detach()


class _Operations:
    """What the operations on a GPU allocate (see ``Operations``)."""

    def copy(self, x: Tensor, out: Tensor) -> None:
        """Allocates nothing."""

    def norm(self, x: Tensor, gain: Tensor, eps: float, out: Tensor) -> Tensor:
        """A number a row."""
        return x.new_empty(len(x), dtype=torch.float32)

    def norm_backward(
        self, grad: Tensor, x: Tensor, gain: Tensor, rstd: Tensor, carried: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The gradients."""
        return torch.empty_like(x), torch.empty_like(gain) if gain.requires_grad else None

    def gate(self, gate_up: Tensor, out: Tensor) -> None:
        """Allocates nothing."""

    def gate_backward(self, grad: Tensor, gate_up: Tensor, out: Tensor) -> None:
        """Allocates nothing."""

    def rotate(self, *_: Any) -> None:
        """Allocates nothing."""

    def rotate_backward(self, *_: Any) -> None:
        """Allocates nothing."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, State]:
        """The result, and a number a head and token."""
        tokens, heads, size = query.shape
        return query.new_empty(tokens, heads, size), (query.new_empty(heads, tokens, dtype=torch.float32),)

    def attend_backward(self, grad: Tensor, inputs: State, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients, and what they are made of."""
        query, key, value = inputs
        return _attention_gradients(query, key, value)

    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A number a row."""
        return logits.new_empty(len(logits), dtype=torch.float32), logits

    def dequantize(self, weight: Any, out: Tensor) -> None:
        """Allocates nothing."""

    def to_float8(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A byte a number, and a scale a row."""
        return x.new_empty(x.shape, dtype=torch.float8_e4m3fn), x.new_empty(len(x), 1, dtype=torch.float32)

    def float8_product(self, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
        """The product."""
        return left[0].new_empty(len(left[0]), len(right[0]), dtype=dtype)


def fuse_acted_out(model: nn.Module, dtype: torch.dtype | None, *, float8: bool = False) -> None:
    """What ``fuse`` does to a model on a GPU, for fake tensors of the CPU."""
    from transformers import AttentionInterface, AttentionMaskInterface

    joined = fuse(model, dtype, _Operations())
    if float8:
        # As round_base: both forms exist until it has compared their losses.
        for each, rounded in zip(joined, [each.in_float8() for each in joined], strict=True):
            each.keep(rounded)
    AttentionInterface.register(_ATTENTION, _attention)
    AttentionMaskInterface.register(_ATTENTION, lambda *_, **__: None)
    causal = causal_model(model)
    causal.set_attn_implementation(_ATTENTION)
    for module in causal.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_norm, module)
        elif all(hasattr(module, part) for part in ("gate_proj", "up_proj", "down_proj")):
            module.forward = partial(_gated, module)


def documents(tokens: int) -> dict[str, Any]:
    """Input of a pass over one document, all of it learnt: what takes most."""
    return {
        "input_ids": torch.zeros(1, tokens, dtype=torch.long),
        "position_ids": torch.zeros(1, tokens, dtype=torch.long),
        "learnt": torch.zeros(tokens, dtype=torch.long),
        "targets": torch.zeros(tokens, dtype=torch.long),
        STARTS: torch.zeros(2, dtype=torch.int32),
        LONGEST: tokens,
    }


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    done: Tensor = _Attention.apply(query, key, value)
    return done, None


def _norm(module: Any, hidden: Tensor) -> Tensor:
    normed: Tensor = _Norm.apply(hidden, module.weight.to(hidden.dtype))
    return normed


def _gated(module: Any, hidden: Tensor) -> Tensor:
    down: Tensor = module.down_proj(_Gate.apply(module.gate_proj(hidden), module.up_proj(hidden)))
    return down
