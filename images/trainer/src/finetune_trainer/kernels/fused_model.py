"""Puts the kernels into a loaded model, where its architecture is one that they were checked on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from finetune_trainer.kernels import attention
from finetune_trainer.kernels.head_loss import head_loss
from finetune_trainer.kernels.lora_linear import fuse_lora
from finetune_trainer.kernels.triton_layers import fuse_layers

ARCHITECTURES = ("llama", "mistral", "phi3", "qwen2", "qwen3")
"""Model types that the tests compare with transformers' own forward and backward pass."""


def unsuited(model: nn.Module, longest: int) -> str | None:
    """Why the kernels do not suit a causal language model (PEFT's wrapper or not); None where they do.

    ``longest`` is the length, in tokens, of the longest sequence that the model will see.
    """
    causal = causal_model(model)
    config = causal.config
    if config.model_type not in ARCHITECTURES:
        return f"architecture {config.model_type} is not one of {', '.join(ARCHITECTURES)}"
    if type(causal.lm_head) is not nn.Linear or causal.lm_head.bias is not None:
        return "the model's head is adapted or trained by itself"
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    if window is not None and slides and window < longest:
        return f"sequences of {longest} tokens are longer than the attention window of {window}"
    return None


def causal_model(model: nn.Module) -> Any:
    """The transformers model inside PEFT's wrapper."""
    inner: Any = model
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def fuse(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Make the model compute the loss of documents laid end to end. ``dtype`` is what autocast computes in, if it does."""
    attention.register()
    causal = causal_model(model)
    causal.set_attn_implementation(attention.NAME)
    causal.forward = _LossOfDocuments(causal)
    fuse_lora(model, dtype)
    fuse_layers(causal)


class _LossOfDocuments:
    """Forward of a causal language model that gives the loss alone."""

    def __init__(self, causal: Any) -> None:
        self._causal = causal

    def __call__(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        learnt: Tensor,
        targets: Tensor,
        num_items_in_batch: Tensor | int | None = None,
        **documents: Any,
    ) -> Any:
        """``learnt`` has the places, in the flat sequence, from which ``targets`` are predicted."""
        from transformers.modeling_outputs import CausalLMOutputWithPast

        body = self._causal.model(input_ids=input_ids, position_ids=position_ids, use_cache=False, **documents)
        hidden = body.last_hidden_state[0].index_select(0, learnt)
        total = head_loss(hidden, self._causal.lm_head.weight, targets)
        return CausalLMOutputWithPast(loss=total / (len(targets) if num_items_in_batch is None else num_items_in_batch))
