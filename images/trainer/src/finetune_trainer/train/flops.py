"""Floating-point operations that learning takes, by the usual count: what the model needs, whatever the code does.

Per token and weight of a matrix, the embedding's look-up left out and the head included: 2 forward, 2 for the gradient of
the input, and 2 for the gradient of the weight where it is trained. So 6 for Full, 4 for a frozen weight and 6 for an
adapter's (Kaplan et al., arXiv 2001.08361, section 2.1; PaLM, arXiv 2204.02311, appendix B).

Causal attention within each document, per layer and pair of a token with one that it sees: 2 for the product of query and
key and 2 for that of weight and value, times heads times head size; twice as many backward.

Activations that are computed a second time (gradient checkpointing) do not count, nor do norms, rotations, the softmax and
DoRA's norm of the weights. The head counts for every token, though the fused kernels leave out tokens that are not learnt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

_TRAINED, _FROZEN = 6, 4
_ATTENTION = 12


@dataclass(frozen=True, slots=True)
class LearningCost:
    """Operations of one model's forward and backward pass."""

    per_token: int
    """In products with weights."""
    per_pair: int
    """In one layer's attention, for a token and one that it sees."""
    layers: Mapping[int | None, int]
    """Layers by how many tokens each of their tokens sees at most, itself included; None: the whole document."""

    def of(self, documents: Iterable[int]) -> int:
        """Operations for learning documents of these lengths."""
        return sum(self.per_token * length + self.per_pair * self._pairs(length) for length in documents)

    def _pairs(self, length: int) -> int:
        return sum(count * attended_pairs(length, window) for window, count in self.layers.items())


def attended_pairs(length: int, window: int | None) -> int:
    """How often a token of a document sees a token, itself included, where it sees ``window`` tokens at most."""
    seen = length if window is None else min(length, window)
    return seen * (seen + 1) // 2 + (length - seen) * seen


def learning_cost(model: nn.Module) -> LearningCost | None:
    """The cost of a causal language model (PEFT's wrapper or not), or None where the count above does not fit it.

    It does not fit mixtures of experts, latent attention, state spaces, convolutions, and models that see or hear.
    """
    inner: Any = model
    config = (inner.get_base_model() if hasattr(inner, "get_base_model") else inner).config
    layers, per_token = _layers(config), _per_token(model)
    if layers is None or per_token is None:
        return None
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return LearningCost(per_token, _ATTENTION * config.num_attention_heads * head_size, layers)


def _layers(config: Any) -> Mapping[int | None, int] | None:
    unlike = ("num_experts_per_tok", "kv_lora_rank", "vision_config", "audio_config")
    if any(getattr(config, name, None) for name in unlike) or not hasattr(config, "num_attention_heads"):
        return None
    window = getattr(config, "sliding_window", None)
    usual = "full_attention" if window is None else "sliding_attention"
    kinds = getattr(config, "layer_types", None) or [usual] * config.num_hidden_layers
    windows = {"full_attention": None, "sliding_attention": window}
    return Counter(windows[kind] for kind in kinds) if windows.keys() >= set(kinds) else None


def _per_token(model: nn.Module) -> int | None:
    total = 0
    for name, module in model.named_modules():
        weights = dict(module.named_parameters(recurse=False))
        # PEFT keeps a frozen copy, which nothing is computed with, of a module that it trains whole.
        if isinstance(module, nn.Embedding) or "original_module" in name.split("."):
            continue
        if _is_linear(module) and "weight" in weights:
            # By its sizes: quantised weights are packed, and those of ZeRO's stage 3 are elsewhere.
            inputs, outputs = int(module.in_features), int(module.out_features)
            total += inputs * outputs * (_TRAINED if weights["weight"].requires_grad else _FROZEN)
        elif any(_dimensions(weight) > 1 for weight in weights.values()):
            return None
    return total


def _is_linear(module: nn.Module) -> bool:
    return "Linear" in type(module).__name__ and hasattr(module, "in_features")


def _dimensions(weight: nn.Parameter) -> int:
    # What DeepSpeed has cut up keeps its shape under a name of its own.
    return len(getattr(weight, "ds_shape", weight.shape))
