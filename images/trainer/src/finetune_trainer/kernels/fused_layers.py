"""Finds the two halves of each layer in a transformers model, and lets the layer compute with ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from finetune_trainer.kernels.blocks import AttentionHalf, GatedHalf, Heads, Norm
from finetune_trainer.kernels.documents import LONGEST, STARTS, Documents
from finetune_trainer.kernels.joined_linear import Adapter, JoinedLinear
from finetune_trainer.kernels.lora_linear import is_plain
from finetune_trainer.kernels.operations import Operations

_INTO_ATTENTION = (("q_proj", "k_proj", "v_proj"), ("qkv_proj",))
_INTO_GATED = (("gate_proj", "up_proj"), ("gate_up_proj",))
"""Names of the projections, by architecture; together their outputs are in the same order."""


LEARNT = "learnt"
"""Argument of the last layer: places whose result is wanted. Nothing else of it is computed after the attention."""


@dataclass(frozen=True, slots=True)
class Computing:
    """How layers compute."""

    dtype: torch.dtype
    operations: Operations

    def joined(self, layers: Sequence[Any]) -> JoinedLinear:
        """Layers that read the same input, adapters included."""
        linears = [getattr(layer, "base_layer", layer) for layer in layers]
        adapters = [_adapter(layer) for layer in layers]
        return JoinedLinear(linears, adapters, self.dtype, self.operations)


def fuse_halves(causal: Any, computing: Computing) -> list[JoinedLinear]:
    """Let the layers compute as two functions each, where all of them can. Returns their products, none where one cannot."""
    layers = list(causal.model.layers)
    if not all(_is_known(layer) and _is_suited(layer, computing.dtype) for layer in layers):
        return []
    joined = []
    for layer in layers:
        layer.forward = _Halves(layer, computing, is_last=layer is layers[-1])
        joined += layer.forward.joined
    return joined


def recompute_first(causal: Any, count: int) -> None:
    """Have the first ``count`` layers, and no others, recompute their activations; the layers are those of ``fuse_halves``."""
    for number, layer in enumerate(causal.model.layers):
        layer.forward.recomputes = number < count


def _is_suited(layer: nn.Module, dtype: torch.dtype) -> bool:
    """Whether what is trained in the layer is what the functions know: plain adapters, or everything, in one number format."""
    from peft.tuners.lora import LoraLayer

    adapted = [module for module in layer.modules() if isinstance(module, LoraLayer)]
    if not adapted:
        # Gains of heads have no gradient here.
        normed_heads = hasattr(layer.self_attn, "q_norm")
        return not normed_heads and all(each.requires_grad and each.dtype is dtype for each in layer.parameters())
    known = {id(parameter) for module in adapted for parameter in module.parameters()}
    frozen = all(id(each) in known or not each.requires_grad for each in layer.parameters())
    return frozen and all(is_plain(module) for module in adapted)


def _is_known(layer: Any) -> bool:
    mixer, mlp = layer.self_attn, layer.mlp
    config = mixer.config
    gains = [getattr(mixer, name, None) for name in ("q_norm", "k_norm")]
    return (
        config.hidden_act in ("silu", "swish")
        and not config.attention_dropout
        and not getattr(config, "resid_pdrop", 0)
        and getattr(config, "partial_rotary_factor", None) in (None, 1.0)
        and bool(_named(mixer, _INTO_ATTENTION))
        and bool(_named(mlp, _INTO_GATED))
        and (gains[0] is None) == (gains[1] is None)
    )


class _Halves:
    """Forward of one layer."""

    def __init__(self, layer: Any, computing: Computing, *, is_last: bool) -> None:
        mixer, mlp, operations = layer.self_attn, layer.mlp, computing.operations
        into, out = computing.joined(_named(mixer, _INTO_ATTENTION)), computing.joined([mixer.o_proj])
        self._attention = AttentionHalf(operations, _norm(layer.input_layernorm), _heads(mixer), into, out)
        into, out = computing.joined(_named(mlp, _INTO_GATED)), computing.joined([mlp.down_proj])
        self._gated = GatedHalf(operations, _norm(layer.post_attention_layernorm), into, out)
        self._is_last = is_last
        # Done here: newer releases of transformers (5.23, not 5.6) recompute in the very method that this replaces.
        self.recomputes: bool = layer.gradient_checkpointing
        layer.gradient_checkpointing = False

    @property
    def joined(self) -> list[JoinedLinear]:
        """The layer's products."""
        return [self._attention.into, self._attention.out, self._gated.into, self._gated.out]

    def __call__(self, hidden_states: Tensor, *_: Any, position_embeddings: Any, **options: Any) -> Tensor:
        if not (self.recomputes and torch.is_grad_enabled()):
            return self._computed(hidden_states, position_embeddings, options)
        # Nothing in the layer is random.
        computed: Tensor = checkpoint(
            self._computed, hidden_states, position_embeddings, options, use_reentrant=False, preserve_rng_state=False
        )
        return computed

    def _computed(self, hidden_states: Tensor, position_embeddings: Any, options: dict[str, Any]) -> Tensor:
        cos, sin = (part[0] for part in position_embeddings)
        documents = Documents(options[STARTS], options[LONGEST])
        # What autocast would do to the operands is done by hand.
        with torch.autocast(hidden_states.device.type, enabled=False):
            between = self._attention(hidden_states[0], documents, cos, sin)
            if self._is_last:
                between = between.index_select(0, options[LEARNT])
            return self._gated(between).unsqueeze(0)


def _named(module: Any, choices: Sequence[Sequence[str]]) -> list[Any]:
    """The projections of the first choice that the module has; none where it has none."""
    return next(
        (
            [getattr(module, name) for name in names]
            for names in choices
            if all(hasattr(module, name) for name in names)
        ),
        [],
    )


def _heads(mixer: Any) -> Heads:
    config = mixer.config
    norms = [_norm(part) if (part := getattr(mixer, name, None)) else None for name in ("q_norm", "k_norm")]
    return Heads(config.num_attention_heads, config.num_key_value_heads, mixer.head_dim, mixer.scaling, *norms)


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon)


def _adapter(layer: Any) -> Adapter | None:
    if not hasattr(layer, "base_layer"):
        return None
    [name] = layer.active_adapters
    return Adapter(layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])
