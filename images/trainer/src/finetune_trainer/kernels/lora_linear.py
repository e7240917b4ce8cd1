"""One autograd function for a linear layer and its low-rank adapter (LoRA, arXiv 2106.09685).

PEFT's layer keeps four tensors as long as the sequence for the backward pass, some of them in float32, and runs over the
output three times. This one keeps the input alone, computes in its number format, and adds the update in place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from finetune_trainer.kernels.frozen_weights import is_4bit


class LoRALinear(torch.autograd.Function):
    """y = x W' + b + scale · (x A') B', with W and b frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Callable[[], Tensor], bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        """``x`` (…, inputs), ``weight`` makes (outputs, inputs), ``a`` (rank, inputs), ``b`` (outputs, rank).

        Quantised weights are made dense once a direction, and are gone again when the product is made.
        """
        rows = x.reshape(-1, x.shape[-1])
        y = functional.linear(rows, weight(), bias)
        y.addmm_(rows @ a.to(x.dtype).t(), b.to(x.dtype).t(), alpha=scale)
        ctx.save_for_backward(x, a, b)
        ctx.weight, ctx.scale = weight, scale
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        """Gradients of the input and of both halves of the adapter; the low-rank middle is computed again."""
        x, a, b = ctx.saved_tensors
        rows, up = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        small_a, small_b = a.to(x.dtype), b.to(x.dtype)
        middle = up @ small_b
        grad_b = (up.t() @ (rows @ small_a.t())).to(b.dtype).mul_(ctx.scale)
        grad_a = (middle.t() @ rows).to(a.dtype).mul_(ctx.scale)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (up @ ctx.weight()).addmm_(middle, small_a, alpha=ctx.scale).view(x.shape)
        return dx, None, None, grad_a, grad_b, None


def fuse_lora(model: nn.Module, dtype: torch.dtype | None) -> int:
    """Give the LoRA layers of a PEFT model the fused function. Returns how many took it.

    ``dtype`` is what autocast computes in; None where there is no autocast. Layers with dropout, DoRA, 8-bit weights or
    several adapters stay PEFT's.
    """
    from peft.tuners.lora import LoraLayer

    fused = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and is_plain(layer)]
    for layer in fused:
        layer.forward = _Fused(layer, dtype)
    return len(fused)


def is_plain(layer: Any) -> bool:
    """Whether a LoRA layer of PEFT's is what the functions here compute: no dropout, DoRA, 8-bit weights or several adapters."""
    [*names] = layer.active_adapters
    if len(names) != 1 or names[0] not in layer.lora_A or not _is_readable(layer.base_layer):
        return False
    name = names[0]
    return (
        isinstance(layer.lora_dropout[name], nn.Identity)
        and not layer.lora_variant.get(name)
        and layer.lora_B[name].bias is None
    )


def _is_readable(linear: nn.Module) -> bool:
    return type(linear) is nn.Linear or is_4bit(linear)


def _dense_weight(linear: Any, dtype: torch.dtype) -> Tensor:
    if not is_4bit(linear):
        weight: Tensor = linear.weight
        return weight.to(dtype)
    from bitsandbytes.functional import dequantize_4bit

    unpacked: Tensor = dequantize_4bit(linear.weight.data, linear.weight.quant_state)
    return unpacked.to(dtype)


class _Fused:
    """Forward of one PEFT layer."""

    def __init__(self, layer: Any, dtype: torch.dtype | None) -> None:
        self._layer = layer
        self._name = layer.active_adapters[0]
        self._dtype = dtype

    def __call__(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        layer, name = self._layer, self._name
        if self._dtype is not None:
            x = x.to(self._dtype)
        bias = layer.base_layer.bias
        # What autocast would do to the operands has been done; it must not do it again inside.
        with torch.autocast(x.device.type, enabled=False):
            return LoRALinear.apply(  # type: ignore[no-any-return]
                x,
                partial(_dense_weight, layer.base_layer, x.dtype),
                None if bias is None else bias.to(x.dtype),
                layer.lora_A[name].weight,
                layer.lora_B[name].weight,
                layer.scaling[name],
            )
