"""A base is rounded to float8 only where the job's own rows say that it does no harm."""

import copy
import json
import math
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from finetune_operator.api.outcome import BASE_NOT_ROUNDED, FLOAT8_LOSS_DIFFERENCE
from finetune_trainer.kernels.fused_model import fuse
from finetune_trainer.kernels.joined_linear import JoinedLinear
from finetune_trainer.train.float8 import Rounding, round_base
from kernel_rows import passes, some_rows

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def a_model() -> nn.Module:
    torch.manual_seed(0)
    options = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(AutoModelForCausalLM.from_config(Qwen2Config(**SHAPE)), options)


def fused(model: nn.Module) -> list[JoinedLinear]:
    return fuse(model, None)


def loss_and_gradients(model: nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    [inputs] = passes(some_rows())
    loss = model(**inputs).loss
    loss.backward()
    return loss.item(), {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def test_a_rounded_base_gives_nearly_the_loss_and_gradients_of_the_base() -> None:
    exact, rounded = a_model(), a_model()
    fused(exact)
    rounding = round_base(rounded, fused(rounded), passes(some_rows()))
    assert rounding.is_harmless
    expected, gradients = loss_and_gradients(exact)
    found, others = loss_and_gradients(rounded)
    assert found == pytest.approx(expected, rel=0.01)
    assert found != expected
    # The figure is for the status, whether the base was rounded or not.
    assert rounding.figures() == {FLOAT8_LOSS_DIFFERENCE: pytest.approx(abs(found - expected) / expected, rel=0.01)}
    for name, gradient in gradients.items():
        assert (others[name] - gradient).norm() < 0.2 * gradient.norm(), name


def test_a_base_that_rounding_does_harm_to_is_kept_and_the_log_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    model = a_model()
    joined = fused(model)
    with torch.no_grad():
        for layer in model.get_base_model().model.layers:
            # A column so large that all others of its rows become nothing beside it, and whose input is almost nothing.
            layer.mlp.down_proj.base_layer.weight[:, 0] = 1e6
            layer.mlp.gate_proj.base_layer.weight[0] = 0
            layer.self_attn.o_proj.base_layer.weight[:, 0] = 1e6
            layer.self_attn.v_proj.base_layer.weight[0] = 0
            for name, each in layer.named_parameters():
                if "lora_" in name:
                    each.zero_()
        model.get_base_model().lm_head.weight.mul_(100)
    before = copy.deepcopy(loss_and_gradients(model))
    figures = round_base(model, joined, passes(some_rows())).figures()
    assert "NOT rounded" in capsys.readouterr().out
    assert float(figures[FLOAT8_LOSS_DIFFERENCE]) > 0.01
    assert "at most 1% is allowed" in str(figures[BASE_NOT_ROUNDED])
    model.zero_grad()
    after = loss_and_gradients(model)
    assert after[0] == before[0]
    for name, gradient in before[1].items():
        assert torch.equal(after[1][name], gradient), name


def test_a_loss_that_is_no_number_counts_as_harm_and_can_be_told_in_json() -> None:
    figures = Rounding(2.0, math.nan).figures()
    assert BASE_NOT_ROUNDED in figures
    assert json.loads(json.dumps(figures, allow_nan=False))[FLOAT8_LOSS_DIFFERENCE] == "nan"


def test_weights_that_are_lent_to_the_layers_are_the_ones_that_are_computed_with() -> None:
    model = a_model()
    joined = fused(model)
    projection = model.get_base_model().model.layers[0].mlp.down_proj.base_layer
    before = loss_and_gradients(model)[0]
    with torch.no_grad():
        projection.weight.mul_(2)
    assert loss_and_gradients(model)[0] != before
    for each in joined:
        each.keep(each.in_float8())
    assert projection.weight.dtype is torch.float8_e4m3fn
    with pytest.raises(TypeError, match="expected DenseWeights"):
        joined[0].in_float8()
