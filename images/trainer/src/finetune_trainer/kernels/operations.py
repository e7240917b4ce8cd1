"""The small operations between the matrix products: what they are, whoever computes them."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from finetune_trainer.kernels.documents import Documents

State = tuple[Tensor, ...]
"""What an attention keeps for its gradient."""


class Operations(Protocol):
    """Implemented in plain PyTorch for the CPU, in Triton for GPUs, and acted out by the memory estimate.

    ``out`` may always be part of a wider tensor, rows apart and numbers of a row side by side; so may ``gate_up`` and heads.
    """

    def copy(self, x: Tensor, out: Tensor) -> None:
        """``out`` = ``x``, both (rows, width)."""

    def norm(self, x: Tensor, gain: Tensor, eps: float, out: Tensor) -> Tensor:
        """RMSNorm (arXiv 1910.07467) of ``x`` (rows, width) with ``gain`` (width).

        Returns the reciprocal root mean square of each row, float32, for ``norm_backward``.
        """

    def norm_backward(
        self, grad: Tensor, x: Tensor, gain: Tensor, rstd: Tensor, carried: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Gradients of ``x``, with ``carried`` added, which is what reaches it past the norm, and of ``gain`` if it is trained.

        All but ``gain`` and ``rstd`` are (rows, width).
        """

    def gate(self, gate_up: Tensor, out: Tensor) -> None:
        """``out`` (rows, width) = silu(gate) · up (arXiv 2002.05202); ``gate_up`` (rows, 2 x width) has both side by side."""

    def gate_backward(self, grad: Tensor, gate_up: Tensor, out: Tensor) -> None:
        """Write the gradient of ``gate_up`` to ``out``, and over ``grad`` what ``gate`` gave.

        The product is made again here, from what is read anyway: kept, it would be a quarter of all activations.
        """

    def rotate(self, x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, gain: Tensor | None, eps: float) -> None:
        """Rotary positions (arXiv 2104.09864) of ``x`` (tokens, heads, head size), after an RMSNorm of each head if ``gain``.

        ``cos`` and ``sin`` are (tokens, head size) with equal halves. ``out`` may be ``x`` where no norm comes first.
        """

    def rotate_backward(
        self, grad: Tensor, x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, gain: Tensor | None, eps: float
    ) -> None:
        """Write to ``out`` the gradient of what ``rotate`` took; without a norm, ``x`` is not read."""

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, documents: Documents, scale: float
    ) -> tuple[Tensor, State]:
        """Causal attention within each document (FlashAttention-2, arXiv 2307.08691); all (tokens, heads, head size)."""

    def attend_backward(
        self, grad: Tensor, inputs: State, done: Tensor, state: State, documents: Documents, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of ``inputs``: query, key and value."""

    def loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's cross entropy, float32, and the gradients of ``logits`` (rows, vocabulary), which may be written over."""

    def dequantize(self, weight: Any, out: Tensor) -> None:
        """Write the dense form of bitsandbytes' ``Params4bit`` to ``out`` (outputs, inputs)."""

    def to_float8(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """float8 numbers (rows, width), and the float32 scales (rows, 1) that give ``x`` back when multiplied."""

    def float8_product(self, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
        """``left`` (rows, inner) times the transpose of ``right`` (columns, inner), both as ``to_float8`` gives them."""


def operations_for(device: torch.device) -> Operations:
    """What computes on a device."""
    if device.type == "cuda":
        from finetune_trainer.kernels.gpu_operations import GPUOperations

        return GPUOperations()
    from finetune_trainer.kernels.plain_operations import PlainOperations

    return PlainOperations()
