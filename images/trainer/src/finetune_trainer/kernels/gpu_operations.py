"""The operations on a GPU: Triton's kernels here, and FlashAttention-2 and float8 products by PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from finetune_trainer.kernels import (
    copy_triton,
    float8_triton,
    four_bits_triton,
    gate_triton,
    loss_triton,
    norm_triton,
    rotation_triton,
)
from finetune_trainer.kernels.documents import Documents
from finetune_trainer.kernels.operations import State


class GPUOperations:
    """See ``Operations``."""

    copy = staticmethod(copy_triton.copy)
    norm = staticmethod(norm_triton.forward)
    norm_backward = staticmethod(norm_triton.backward)
    gate = staticmethod(gate_triton.forward)
    gate_backward = staticmethod(gate_triton.backward)
    rotate = staticmethod(rotation_triton.forward)
    rotate_backward = staticmethod(rotation_triton.backward)
    loss = staticmethod(loss_triton.loss)
    to_float8 = staticmethod(float8_triton.to_float8)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, documents: Documents, scale: float
    ) -> tuple[Tensor, State]:
        """As in Operations."""
        starts, longest = documents.starts, documents.longest
        done, *state, _ = torch.ops.aten._flash_attention_forward(
            query, key, value, starts, starts, longest, longest, 0.0, True, False, scale=scale
        )
        return done, tuple(state)

    def attend_backward(
        self, grad: Tensor, inputs: State, done: Tensor, state: State, documents: Documents, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As in Operations."""
        starts, longest = documents.starts, documents.longest
        sums, random, unused = state
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._flash_attention_backward(
            grad, *inputs, done, sums, starts, starts, longest, longest, 0.0, True, random, unused, scale=scale
        )
        return found

    def dequantize(self, weight: Any, out: Tensor) -> None:
        """As in Operations."""
        four_bits_triton.dequantize(weight.data, weight.quant_state, out)

    def float8_product(self, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
        """As in Operations."""
        # Sums inside the matrix unit have 14 bits, as in all published float8 trainings that use its full speed.
        return torch._scaled_mm(left[0], right[0].t(), left[1], right[1].t(), out_dtype=dtype, use_fast_accum=True)
