"""Liger's Triton kernels for normalisation, rotation and the gated MLP (arXiv 2410.10989); on the CPU nothing is changed."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from torch import Tensor, nn


def fuse_layers(causal: Any) -> None:
    """Let the layers of a model on a GPU compute with Liger's kernels, with the same results up to rounding."""
    if next(causal.parameters()).device.type != "cuda":
        return
    for module in causal.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_norm, module)
        elif _is_gated(module):
            module.forward = partial(_gated, module)
    from liger_kernel.transformers.rope import liger_rotary_pos_emb  # type: ignore[import-untyped]

    # The attention layers look the function up in their module, which is this process's own.
    sys.modules[type(causal).__module__].apply_rotary_pos_emb = liger_rotary_pos_emb  # type: ignore[attr-defined]


def _norm(module: Any, hidden: Tensor) -> Tensor:
    from liger_kernel.transformers.functional import liger_rms_norm  # type: ignore[import-untyped]

    normed: Tensor = liger_rms_norm(hidden, module.weight.to(hidden.dtype), module.variance_epsilon, in_place=False)
    return normed


def _is_gated(module: nn.Module) -> bool:
    parts = ("gate_proj", "up_proj", "down_proj")
    silu = getattr(getattr(module, "config", None), "hidden_act", None) in ("silu", "swish")
    return silu and all(hasattr(module, part) for part in parts)


def _gated(module: Any, hidden: Tensor) -> Tensor:
    from liger_kernel.transformers.functional import liger_swiglu

    down: Tensor = module.down_proj(liger_swiglu(module.gate_proj(hidden), module.up_proj(hidden)))
    return down
