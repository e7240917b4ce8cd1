"""Gradient checkpointing of a model whose layers are the fused halves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen2Config

import tiny_models
from finetune_trainer.estimate.predict import Predictor
from finetune_trainer.estimate.workload import Workload
from finetune_trainer.kernels.documents import LONGEST, STARTS
from finetune_trainer.kernels.fused_model import fuse
from finetune_trainer.kernels.plain_operations import PlainOperations
from finetune_trainer.train.model import make_trainable

LAYERS, TOKENS = 3, 64
CONFIG = Qwen2Config(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    num_key_value_heads=2,
)


class Counting(PlainOperations):
    """Counts attentions."""

    attended = 0

    def attend(self, *arguments: Any) -> Any:
        self.attended += 1
        return super().attend(*arguments)


def trained(method: str, *, recomputes: bool) -> tuple[int, dict[str, Tensor]]:
    """Attentions of a forward and backward pass, and the gradients."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG, dtype=torch.float32)
    model = make_trainable(model, tiny_models.job(Path("/job"), method=method).spec, recomputes=recomputes).train()
    operations = Counting()
    fuse(model, None, operations)
    places = torch.arange(TOKENS)
    starts = torch.tensor([0, TOKENS], dtype=torch.int32)
    inputs = {
        "input_ids": places[None],
        "position_ids": places[None],
        "learnt": places[:-1],
        "targets": places[1:],
    }
    model(**inputs, **{STARTS: starts, LONGEST: TOKENS}).loss.backward()
    return operations.attended, {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("method", ["LoRA", "Full"])
def test_layers_are_computed_again_where_that_is_asked_for_with_the_same_gradients(method: str) -> None:
    (once, kept), (twice, recomputed) = (trained(method, recomputes=each) for each in (False, True))
    assert (once, twice) == (LAYERS, 2 * LAYERS)
    assert kept
    assert kept.keys() == recomputed.keys()
    assert all(torch.equal(kept[name], recomputed[name]) for name in kept)


@pytest.mark.parametrize("method", ["LoRA", "QLoRA", "Full"])
def test_recomputing_is_predicted_to_take_less(method: str) -> None:
    spec, workload = tiny_models.job(Path("/job"), method=method).spec, Workload(2048)
    predictor = Predictor(CONFIG, torch.bfloat16)
    recomputed, kept = (predictor.predict(spec, workload, recomputes=each, tokens=2048).total for each in (True, False))
    assert recomputed < kept
