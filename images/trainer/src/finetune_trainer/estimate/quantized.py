"""Stand-ins for bitsandbytes' layers: the sizes and life spans of theirs, and no numbers.

The real ones quantise when their weights reach a GPU. These begin as if they had been there.
"""

from __future__ import annotations

from typing import Any

import bitsandbytes
import torch
from bitsandbytes.functional import QuantState
from torch import Tensor, nn
from torch.nn import functional

from finetune_operator.api.method import Quantization
from finetune_trainer.estimate.parts import CONSTANTS

_BLOCK, _NESTED_BLOCK = 64, 256
"""Weights that share a scale, and scales that share one when they are quantised themselves (bitsandbytes' defaults)."""


class _Dense(torch.autograd.Function):
    """A product with weights that are made dense for it, in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, outputs: int, bias: Tensor | None, *kept: Tensor) -> Tensor:
        # As bitsandbytes keeps it, out of the sight of gradient checkpointing.
        ctx.shape, ctx.kept = (outputs, x.shape[-1]), kept
        return functional.linear(x, x.new_empty(ctx.shape), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient @ gradient.new_empty(ctx.shape), *[None] * (2 + len(ctx.kept))


class Linear4bit(bitsandbytes.nn.Linear4bit):  # type: ignore[misc]  # bitsandbytes is not type-checked
    """Keeps nothing for the backward pass but the packed weights. The name is what the fused kernels know a layer by."""

    def forward(self, x: Tensor) -> Tensor:
        dense: Tensor = _Dense.apply(x.to(self.compute_dtype), self.out_features, self.bias)
        return dense.to(x.dtype)

    def attach_state(self) -> None:
        """Attach what bitsandbytes' functions ask for when they make weights dense, on the weights' present device."""
        blocks = -(-self.in_features * self.out_features // _BLOCK)
        self.weight.quant_state = QuantState(
            absmax=torch.empty(blocks, device=self.weight.device),
            shape=torch.Size((self.out_features, self.in_features)),
            blocksize=_BLOCK,
            quant_type="nf4",
            dtype=self.compute_dtype,
        )


class Linear8bitLt(bitsandbytes.nn.Linear8bitLt):  # type: ignore[misc]
    """Keeps its input as well, and the columns of it that have outliers (LLM.int8, arXiv 2208.07339).

    How many have is not known. Products of two activations, which is what a layer that narrows gets, have most: there, all
    columns are counted, as random weights have it; elsewhere none.
    """

    def forward(self, x: Tensor) -> Tensor:
        # Quantised by way of float16.
        _ = x.to(torch.float16).to(torch.int8)
        outliers = [x.clone()] if self.in_features > self.out_features else []
        dense: Tensor = _Dense.apply(x, self.out_features, self.bias, x, *outliers)
        return dense


def quantize(model: Any, quantization: Quantization, compute: torch.dtype) -> None:
    """Put a stand-in wherever transformers would put a layer of bitsandbytes: every linear layer but the head."""
    head = model.get_output_embeddings()
    linear = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear]
    for name, module in linear:
        if module is not head:
            model.set_submodule(name, _stand_in(module, quantization, compute))
    # PEFT asks for these before it asks for the class of a layer.
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = quantization.bits == 4, quantization.bits == 8


def _stand_in(linear: nn.Linear, quantization: Quantization, compute: torch.dtype) -> nn.Module:
    inputs, outputs = linear.in_features, linear.out_features
    has_bias = linear.bias is not None
    with torch.device("meta"):
        if quantization.bits == 8:
            made = Linear8bitLt(inputs, outputs, has_bias, has_fp16_weights=False)
            made.weight = nn.Parameter(torch.empty(outputs, inputs, dtype=torch.int8), requires_grad=False)
            constants = 4 * outputs
        else:
            made = Linear4bit(inputs, outputs, has_bias, compute, quantization.double_quantization)
            made.weight.data = torch.empty(inputs * outputs // 2, 1, dtype=torch.uint8)
            made.attach_state()
            constants = _scales(inputs * outputs, nested=quantization.double_quantization)
        made.bias = None if linear.bias is None else nn.Parameter(linear.bias.data, requires_grad=False)
        made.register_buffer(CONSTANTS, torch.empty(constants, dtype=torch.uint8))
    return made


def _scales(weights: int, *, nested: bool) -> int:
    """Bytes of the scales (arXiv 2305.14314, section 3)."""
    blocks = -(-weights // _BLOCK)
    return blocks + 4 * -(-blocks // _NESTED_BLOCK) if nested else 4 * blocks
