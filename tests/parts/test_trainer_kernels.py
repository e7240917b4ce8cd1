"""The fused kernels compute what transformers and PEFT compute: loss and every gradient, with padding or without."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from finetune_operator.api.tokenization import Packing
from finetune_trainer.kernels.fused_model import fuse, unsuited
from finetune_trainer.kernels.lora_linear import fuse_lora
from finetune_trainer.store import StoredRow
from finetune_trainer.train.data import TOKENS, Collator
from finetune_trainer.train.documents import PASSES, DocumentCollator
from kernel_rows import some_rows

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": False,
}
ARCHITECTURES = [LlamaConfig, MistralConfig, Phi3Config, Qwen2Config, Qwen3Config]
TOLERANCE = 1e-5


def a_model(config: type[PreTrainedConfig], method: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = AutoModelForCausalLM.from_config(config(**SHAPE), attn_implementation="sdpa")
    if method == "LoRA":
        options = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(model, options)
    return model


def sequences_for(packing: Packing) -> list[list[StoredRow]]:
    rows = some_rows()
    return [[row] for row in rows] if packing is Packing.NONE else [rows[:2], rows[2:]]


def plain_loss(model: nn.Module, packing: Packing) -> tuple[float, Any]:
    batch = Collator(0, packing)(sequences_for(packing))
    batch.pop(TOKENS)
    items = (batch["labels"][:, 1:] != -100).sum()
    loss = model(**batch, num_items_in_batch=items).loss
    loss.backward()
    return loss.item(), items


def fused_loss(model: nn.Module, packing: Packing, items: Any, tokens_per_pass: int) -> float:
    total = 0.0
    for inputs in DocumentCollator(packing, tokens_per_pass, tokens_per_pass)(sequences_for(packing))[PASSES]:
        inputs.pop(TOKENS)
        loss = model(**inputs, num_items_in_batch=items).loss
        loss.backward()
        total += loss.item()
    return total


@pytest.mark.parametrize("tokens_per_pass", [16, 10_000], ids=["several passes", "one pass"])
@pytest.mark.parametrize("packing", list(Packing))
@pytest.mark.parametrize("method", ["Full", "LoRA"])
@pytest.mark.parametrize("config", ARCHITECTURES)
def test_loss_and_gradients_are_those_of_the_padded_batch(
    config: type[PreTrainedConfig], method: str, packing: Packing, tokens_per_pass: int
) -> None:
    plain = a_model(config, method)
    fused = copy.deepcopy(plain)
    fuse(fused, None)
    expected, items = plain_loss(plain, packing)
    assert fused_loss(fused, packing, items, tokens_per_pass) == pytest.approx(expected, abs=TOLERANCE)
    for (name, before), after in zip(plain.named_parameters(), fused.parameters(), strict=True):
        if before.requires_grad:
            torch.testing.assert_close(after.grad, before.grad, rtol=1e-4, atol=TOLERANCE, msg=name)


@pytest.mark.parametrize("packing", list(Packing))
def test_the_targets_that_are_counted_are_those_of_the_padded_batch(packing: Packing) -> None:
    padded = Collator(0, packing)(sequences_for(packing))["labels"][:, 1:]
    documents = DocumentCollator(packing, 16, 16)(sequences_for(packing))
    assert (documents["shift_labels"] != -100).sum() == (padded != -100).sum()


def test_a_pass_takes_whole_sequences_up_to_its_tokens_and_at_least_one() -> None:
    passes = DocumentCollator(Packing.NONE, 16, 16)([[row] for row in some_rows()])[PASSES]
    assert [inputs["document_starts"].tolist() for inputs in passes] == [[0, 5, 16], [0, 7], [0, 16]]


def test_a_step_up_to_the_larger_number_of_tokens_is_one_pass() -> None:
    rows = [[row] for row in some_rows()]
    tokens = sum(len(row.input_ids) for row in some_rows())
    assert len(DocumentCollator(Packing.NONE, tokens, 16)(rows)[PASSES]) == 1
    assert len(DocumentCollator(Packing.NONE, tokens - 1, 16)(rows)[PASSES]) == 3


def test_an_evaluation_without_gradients_gives_the_same_loss() -> None:
    model = a_model(Qwen2Config, "LoRA")
    fuse(model, None)
    expected = fused_loss(model, Packing.NONE, 20, 10_000)
    [inputs] = DocumentCollator(Packing.NONE, 10_000, 10_000)(sequences_for(Packing.NONE))[PASSES]
    inputs.pop(TOKENS)
    with torch.no_grad():
        assert model(**inputs, num_items_in_batch=20).loss.item() == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("options", [{"lora_dropout": 0.1}, {"use_dora": True}], ids=["dropout", "DoRA"])
def test_adapters_that_the_function_does_not_know_stay_with_peft(options: dict[str, Any]) -> None:
    model = AutoModelForCausalLM.from_config(Qwen2Config(**SHAPE))
    adapted = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], **options)
    )
    assert fuse_lora(adapted, None) == 0


def test_what_the_kernels_do_not_suit_is_said() -> None:
    other = AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=50))
    assert "architecture gpt2" in str(unsuited(other, 16))
    sliding = AutoModelForCausalLM.from_config(MistralConfig(**SHAPE, sliding_window=8))
    assert "window of 8" in str(unsuited(sliding, 16))
    assert unsuited(sliding, 8) is None
    model = AutoModelForCausalLM.from_config(Qwen2Config(**SHAPE))
    trained_head = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], modules_to_save=["lm_head"])
    assert "head" in str(unsuited(get_peft_model(model, trained_head), 16))
