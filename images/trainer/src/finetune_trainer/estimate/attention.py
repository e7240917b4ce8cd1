"""PyTorch's attention without a mask, for sequences that are causal throughout."""

from __future__ import annotations

from typing import Any

_NAME = "finetune_sdpa_without_mask"


def attend_without_mask(model: Any) -> None:
    """Let a model that uses PyTorch's attention do without a mask; others need theirs."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(_NAME, sdpa_attention_forward)
    AttentionMaskInterface.register(_NAME, lambda *_, **__: None)
    transformer = model.get_base_model() if hasattr(model, "get_base_model") else model
    transformer.set_attn_implementation(_NAME)
