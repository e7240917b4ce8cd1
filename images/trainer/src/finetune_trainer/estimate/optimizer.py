"""State that optimizers keep, as tensors of its size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from finetune_operator.api.training import Optimizer

_8BIT_BLOCK = 256
_8BIT_SMALLEST = 4096
"""bitsandbytes (optim/optimizer.py): values that share a scale, and the smallest tensor whose state is held in 8 bits."""


def state_tensors(
    optimizer: Optimizer, parameters: Sequence[nn.Parameter], embeddings: frozenset[int]
) -> Iterator[Tensor]:
    """What the optimizer keeps on the GPU for the parameters, once it has made a step.

    Paged state makes room for other tensors when there is none, so that it is left out. The Trainer keeps the state of
    ``embeddings`` (ids of parameters) in 32 bits.
    """
    for parameter in parameters:
        if optimizer is Optimizer.ADAMW:
            yield from _moments_and_master(parameter)
        elif optimizer is Optimizer.ADAMW_8BIT:
            yield from _8bit_state(parameter, exempt=id(parameter) in embeddings)
        elif optimizer is Optimizer.ADAFACTOR:
            yield from _factored(parameter)


def step_tensors(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> Iterator[Tensor]:
    """What a step takes besides: Adafactor makes an update and its square for one parameter after the other."""
    if optimizer is Optimizer.ADAFACTOR:
        largest = max(parameters, key=Tensor.numel)
        yield from (torch.empty_like(largest) for _ in range(2))
    elif optimizer is Optimizer.SGD:
        # With weight decay, all gradients are copied at once.
        yield from map(torch.empty_like, parameters)


def _moments_and_master(parameter: nn.Parameter) -> Iterator[Tensor]:
    yield from (torch.empty_like(parameter, dtype=torch.float32) for _ in range(2))
    if parameter.dtype is torch.bfloat16:
        # What the float32 master has more (SplitAdamW).
        yield torch.empty_like(parameter, dtype=torch.int16)


def _8bit_state(parameter: nn.Parameter, *, exempt: bool) -> Iterator[Tensor]:
    for _ in range(2):
        if exempt or parameter.numel() < _8BIT_SMALLEST:
            yield torch.empty_like(parameter, dtype=torch.float32)
        else:
            yield torch.empty_like(parameter, dtype=torch.uint8)
            yield torch.empty(-(-parameter.numel() // _8BIT_BLOCK), dtype=torch.float32)


def _factored(parameter: nn.Parameter) -> Iterator[Tensor]:
    """A mean a row and a mean a column (arXiv 1804.04235)."""
    if parameter.dim() < 2:
        yield torch.empty_like(parameter)
        return
    yield torch.empty(parameter.shape[:-1])
    yield torch.empty(*parameter.shape[:-2], parameter.shape[-1])
