"""A step of AdamW for one tensor in one kernel: every number of weight, gradient and state is read once and written once."""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _kernel(
    high,
    low,
    gradient,
    average,
    square,
    factor,
    decay,
    new1,
    beta2,
    new2,
    epsilon,
    step_size,
    root,
    count,
    BLOCK: tl.constexpr,
) -> None:
    # 64 bits: an embedding may have more numbers than 32 bits count.
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < count
    upper = tl.load(high + places, mask=inside, other=0).to(tl.int32)
    master = ((upper << 16) + tl.load(low + places, mask=inside, other=0).to(tl.int32)).to(tl.float32, bitcast=True)
    slope = tl.load(gradient + places, mask=inside, other=0).to(tl.float32) * tl.load(factor)
    mean = tl.load(average + places, mask=inside, other=0)
    mean += (slope - mean) * new1
    spread = tl.load(square + places, mask=inside, other=0) * beta2 + slope * slope * new2
    master = master * decay - step_size * tl.div_rn(mean, tl.div_rn(tl.sqrt_rn(spread), root) + epsilon)
    # As in `split_into`: what is not a number must not round to one.
    bits = tl.where(master == master, master.to(tl.int32, bitcast=True), 0x7FC00000)
    upper = (bits + 0x8000) >> 16
    tl.store(high + places, upper.to(tl.int16), mask=inside)
    tl.store(low + places, (bits - (upper << 16)).to(tl.int16), mask=inside)
    tl.store(average + places, mean, mask=inside)
    tl.store(square + places, spread, mask=inside)


def step_tensor(
    weight: Tensor,
    remainder: Tensor,
    gradient: Tensor,
    average: Tensor,
    square: Tensor,
    factor: Tensor,
    step: int,
    group: dict[str, Any],
) -> None:
    """Update a bf16 ``weight`` with its int16 ``remainder``, and the float32 ``average`` and ``square``, in place.

    All have one memory layout. ``gradient`` is bf16 or float32, ``factor`` a float32 that it is multiplied by, ``step``
    counts from 1, ``group`` is a parameter group of AdamW's. The formula is that of torch.optim.AdamW (arXiv 1711.05101).
    """
    (beta1, beta2), rate = group["betas"], float(group["lr"])
    count = weight.numel()
    _kernel[(triton.cdiv(count, _BLOCK),)](
        weight.view(torch.int16),
        remainder,
        gradient,
        average,
        square,
        factor,
        1 - rate * group["weight_decay"],
        # Made here, in 64 bits: of 1 - 0.999, 32 bits have but four digits right.
        1 - beta1,
        beta2,
        1 - beta2,
        group["eps"],
        rate / (1 - beta1**step),
        (1 - beta2**step) ** 0.5,
        count,
        BLOCK=_BLOCK,
    )
