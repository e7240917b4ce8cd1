"""Operations that learning takes, against figures worked out by hand and against a count of what torch really does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from finetune_trainer.train.card_limits import dense_limit
from finetune_trainer.train.flops import LearningCost, attended_pairs, learning_cost

SHAPE = {
    "vocab_size": 32,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
# A layer: query and output 8 x 8, key and value 8 x 4, three of 8 x 16 in the MLP: 576. The head: 8 x 32.
WEIGHTS = 2 * 576 + 256


def small(**changes: Any) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(Qwen2Config(**{**SHAPE, **changes}, attn_implementation="eager"))


def with_adapters(model: nn.Module, **options: Any) -> nn.Module:
    """Adapters of rank 2 on query and value: 2 x (8 + 8) and 2 x (8 + 4) weights a layer."""
    return get_peft_model(model, LoraConfig(TaskType.CAUSAL_LM, r=2, target_modules=["q_proj", "v_proj"], **options))


def cost_of(model: nn.Module) -> LearningCost:
    cost = learning_cost(model)
    assert cost is not None
    return cost


def test_a_trained_weight_costs_six_operations_a_token_and_the_embeddings_look_up_none() -> None:
    assert cost_of(small()).per_token == 6 * WEIGHTS == 8448


def test_a_head_that_is_tied_to_the_embedding_is_counted() -> None:
    assert cost_of(small(tie_word_embeddings=True)).per_token == 8448


def test_a_frozen_weight_costs_four_and_an_adapters_six() -> None:
    assert cost_of(with_adapters(small())).per_token == 4 * WEIGHTS + 6 * 2 * (32 + 24) == 6304


def test_a_module_that_is_trained_whole_costs_six_and_its_frozen_copy_nothing() -> None:
    model = with_adapters(small(), modules_to_save=["lm_head"])
    assert cost_of(model).per_token == 6304 + 2 * 256


def test_attention_costs_twelve_operations_a_pair_of_tokens_and_number_of_a_head() -> None:
    cost = cost_of(small())
    assert (cost.per_pair, dict(cost.layers)) == (12 * 2 * 4, {None: 2})
    # Three tokens make six pairs with what they see, one token makes one.
    assert cost.of([3, 1]) == 4 * 8448 + 7 * 96 * 2
    assert cost.of([]) == 0


@pytest.mark.parametrize(
    ("length", "window", "pairs"),
    [(1, None, 1), (4, None, 10), (1024, None, 524_800), (4, 4, 10), (5, 2, 1 + 4 * 2), (3, 1, 3), (0, None, 0)],
)
def test_a_token_sees_itself_and_those_before_it_in_its_window(length: int, window: int | None, pairs: int) -> None:
    assert attended_pairs(length, window) == pairs
    assert sum(min(place + 1, window or length) for place in range(length)) == pairs


def test_layers_with_a_window_are_told_apart() -> None:
    sliding = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=2))
    assert dict(cost_of(sliding).layers) == {2: 2}
    mixed = small(use_sliding_window=True, sliding_window=4, max_window_layers=1)
    assert dict(cost_of(mixed).layers) == {None: 1, 4: 1}
    # Pairs of a document of six: 21 in the whole, and 4 x 5 / 2 + 2 x 4 = 18 in the window.
    assert cost_of(mixed).of([6]) == 6 * 8448 + 96 * (21 + 18)


@pytest.mark.parametrize("adapters", [False, True], ids=["full", "adapters"])
def test_the_count_is_what_torch_counts_where_attention_sees_everything(adapters: bool) -> None:
    model = small()
    # Gradients reach the first layer's input as they do where the embedding is trained.
    model = with_adapters(model) if adapters else model
    if adapters:
        model.enable_input_require_grads()
    ids = torch.arange(16).unsqueeze(0)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    cost = cost_of(model)
    # This attention computes all pairs, and masks the half that is not seen.
    assert counter.get_total_flops() == 16 * cost.per_token + 2 * 16 * 16 * cost.per_pair


@pytest.mark.parametrize(
    ("trained", "tokens_per_second", "tflops"),
    [(False, 558, 16), (False, 12_191, 345), (False, 17_171, 486), (True, 10_541, 447), (True, 13_068, 554)],
)
def test_qwen2_7b_takes_what_earlier_measurements_were_converted_with(
    trained: bool, tokens_per_second: int, tflops: int
) -> None:
    with torch.device("meta"):
        model = Qwen2ForCausalLM(
            Qwen2Config(
                hidden_size=3584,
                intermediate_size=18_944,
                num_hidden_layers=28,
                num_attention_heads=28,
                num_key_value_heads=4,
                vocab_size=152_064,
            )
        ).requires_grad_(trained)
    cost = cost_of(model)
    assert cost.per_token == (6 if trained else 4) * 7_070_285_824
    assert round(tokens_per_second * cost.per_token / 1e12) == tflops
    # Attention within 300 tokens adds half a percent: 12 x 28 heads x 128 x 28 layers x 150.5 pairs a token.
    assert cost.of([300]) == 300 * cost.per_token + 12 * 28 * 128 * 28 * 45_150


def test_quantised_weights_are_counted_by_the_sizes_of_their_layer() -> None:
    packed = small().requires_grad_(False)
    for layer in packed.model.layers:
        layer.mlp.up_proj.weight = nn.Parameter(torch.zeros(64, 1, dtype=torch.uint8), requires_grad=False)
    assert cost_of(packed).per_token == 4 * WEIGHTS


@pytest.mark.parametrize(
    "model",
    [
        lambda: MambaForCausalLM(MambaConfig(vocab_size=32, hidden_size=8, state_size=4, num_hidden_layers=1)),
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=8, n_layer=1, n_head=2)),
        lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**SHAPE, num_experts=2, moe_intermediate_size=8)),
    ],
    ids=["state space", "layers of another kind", "experts"],
)
def test_a_model_that_the_count_does_not_fit_has_none(model: Any) -> None:
    assert learning_cost(model()) is None


@pytest.mark.parametrize(
    ("card", "limit"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA B200", 2250),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("A100-SXM4-40GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("Tesla V100-SXM2-16GB", 125),
        ("Tesla T4", 65),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA A10G", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H2000", None),
        ("", None),
    ],
)
def test_a_card_has_the_limit_of_its_datasheet_or_none(card: str, limit: float | None) -> None:
    assert dense_limit(card) == limit
