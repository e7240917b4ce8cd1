"""Puts the kernels into a loaded model, where its architecture is one that they were checked on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from finetune_trainer.kernels import attention
from finetune_trainer.kernels.fused_layers import LEARNT, Computing, fuse_halves
from finetune_trainer.kernels.head_loss import head_loss
from finetune_trainer.kernels.joined_linear import JoinedLinear
from finetune_trainer.kernels.lora_linear import fuse_lora
from finetune_trainer.kernels.operations import Operations, operations_for
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


def fuse(model: nn.Module, dtype: torch.dtype | None, operations: Operations | None = None) -> list[JoinedLinear]:
    """Make the model compute the loss of documents laid end to end.

    ``dtype`` is what autocast computes in, if it does; ``operations`` are those of the model's device unless given.
    Returns the products of the layers, where those are functions of ours: all of them, or none.
    """
    attention.register()
    causal = causal_model(model)
    causal.set_attn_implementation(attention.NAME)
    embeddings = causal.get_input_embeddings().weight
    computing = Computing(dtype or embeddings.dtype, operations or operations_for(embeddings.device))
    joined = fuse_halves(causal, computing)
    causal.forward = _LossOfDocuments(causal, computing, selects=bool(joined))
    if not joined:
        fuse_lora(model, dtype)
    fuse_layers(causal)
    return joined


class _LossOfDocuments:
    """Forward of a causal language model that gives the loss alone."""

    def __init__(self, causal: Any, computing: Computing, *, selects: bool) -> None:
        self._causal, self._computing, self._selects = causal, computing, selects

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

        documents |= {LEARNT: learnt} if self._selects else {}
        body = self._causal.model(input_ids=input_ids, position_ids=position_ids, use_cache=False, **documents)
        hidden = body.last_hidden_state[0]
        hidden = hidden if self._selects else hidden.index_select(0, learnt)
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.to(self._computing.dtype)
            total = head_loss(hidden, self._causal.lm_head.weight, targets, self._computing.operations)
        return CausalLMOutputWithPast(loss=total / (len(targets) if num_items_in_batch is None else num_items_in_batch))
