"""The merged weights, bit by bit, against PEFT's own merge in fp32 rounded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from finetune_merger import fold
from finetune_merger.adapter import LowRank
from finetune_merger.checkpoint import Checkpoint
from finetune_merger.stage import merge
from finetune_operator.api.delivery import MergeDtype
from tiny_models import job, load, save_adapter, save_base

ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {},
    "odd-scale": {"r": 3, "lora_alpha": 7},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora-rslora": {"use_dora": True, "use_rslora": True},
    "attention-only": {"target_modules": ["q_proj", "v_proj"]},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 5}},
    "modules-to-save": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "embedding": {"target_modules": ["embed_tokens", "o_proj"]},
}


def merged_tensors(root: Path) -> dict[str, torch.Tensor]:
    checkpoint = Checkpoint.open(root / "merged")
    return {name: checkpoint.load(name) for name in checkpoint.tensors}


def merged_by_peft(root: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    model = PeftModel.from_pretrained(load(root / "base"), root / "adapter").merge_and_unload()
    return {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}


def make_job(root: Path, dtype: torch.dtype = torch.float32, lora: dict[str, Any] | None = None, **base: Any) -> None:
    save_base(root / "base", dtype=dtype, **base)
    save_adapter(root / "base", root / "adapter", **(lora or {}))


def assert_bit_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    differing = [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]
    assert not differing
    assert {tensor.dtype for tensor in found.values()} == {tensor.dtype for tensor in expected.values()}


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize("lora", ADAPTERS.values(), ids=ADAPTERS)
def test_a_merge_in_fp32_is_bit_equal_to_pefts(tmp_path: Path, architecture: str, lora: dict[str, Any]) -> None:
    make_job(tmp_path, lora=lora, architecture=architecture, tie_word_embeddings=False)
    merge(job(tmp_path))
    assert_bit_equal(merged_tensors(tmp_path), merged_by_peft(tmp_path, torch.float32))


@pytest.mark.parametrize("lora", ADAPTERS.values(), ids=ADAPTERS)
def test_a_merge_into_bf16_is_computed_in_fp32_and_rounded_once(tmp_path: Path, lora: dict[str, Any]) -> None:
    make_job(tmp_path, dtype=torch.bfloat16, lora=lora, tie_word_embeddings=False)
    merge(job(tmp_path))
    assert_bit_equal(merged_tensors(tmp_path), merged_by_peft(tmp_path, torch.bfloat16))


def test_a_bf16_adapter_is_not_rounded_before_the_sum() -> None:
    torch.manual_seed(1)
    weight, a, b = torch.randn(16, 8).bfloat16(), torch.randn(4, 8).bfloat16(), torch.randn(16, 4).bfloat16()
    (found,) = fold.folded(weight, LowRank(a, b, scale=0.3), torch.bfloat16)
    assert torch.equal(found, (weight.float() + b.float() @ a.float() * 0.3).bfloat16())


@pytest.mark.parametrize("magnitude", [None, torch.rand(40)], ids=["lora", "dora"])
def test_a_weight_larger_than_a_block_is_folded_as_if_it_were_one(
    monkeypatch: pytest.MonkeyPatch, magnitude: torch.Tensor | None
) -> None:
    torch.manual_seed(2)
    weight, update = torch.randn(40, 24), LowRank(torch.randn(4, 24), torch.randn(40, 4), 2.0, magnitude)
    (whole,) = fold.folded(weight, update, torch.float32)
    monkeypatch.setattr(fold, "BLOCK", 7 * 24)
    blocks = list(fold.folded(weight, update, torch.float32))
    assert [len(block) for block in blocks] == [7, 7, 7, 7, 7, 5]
    assert torch.allclose(torch.cat(blocks), whole, rtol=0, atol=1e-6)


def test_a_weight_stored_transposed_gets_the_transposed_update() -> None:
    torch.manual_seed(3)
    weight, a, b, magnitude = torch.randn(8, 16), torch.randn(4, 8), torch.randn(16, 4), torch.rand(16)
    (found,) = fold.folded(weight, LowRank(a, b, 2.0, magnitude, transposed=True), torch.float32)
    (upright,) = fold.folded(weight.T.contiguous(), LowRank(a, b, 2.0, magnitude), torch.float32)
    assert torch.equal(found, upright.T)


def test_tensors_that_the_adapter_leaves_alone_are_byte_identical(tmp_path: Path) -> None:
    make_job(tmp_path, dtype=torch.bfloat16, lora={"target_modules": ["q_proj"]}, tie_word_embeddings=False)
    merge(job(tmp_path))
    base, merged = load_file(tmp_path / "base/model.safetensors"), merged_tensors(tmp_path)
    changed = [name for name, tensor in base.items() if not torch.equal(tensor, merged[name])]
    assert changed == [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)]


@pytest.mark.parametrize(
    ("wanted", "dtype"),
    [(MergeDtype.FP32, torch.float32), (MergeDtype.BF16, torch.bfloat16), (MergeDtype.FP16, torch.float16)],
)
def test_merge_dtype_converts_every_tensor_with_one_rounding(
    tmp_path: Path, wanted: MergeDtype, dtype: torch.dtype
) -> None:
    make_job(tmp_path, dtype=torch.bfloat16, tie_word_embeddings=False)
    merge(job(tmp_path, merge={"dtype": wanted}))
    assert_bit_equal(merged_tensors(tmp_path), merged_by_peft(tmp_path, dtype))
    assert str(load_config_dtype(tmp_path)) == str(dtype)


def load_config_dtype(root: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(root / "merged").dtype


TIED: dict[str, dict[str, Any]] = {
    "embedding-saved": {"modules_to_save": ["embed_tokens"]},
    "head-saved": {"modules_to_save": ["lm_head"]},
    "both-saved": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "embedding-adapted": {"target_modules": ["embed_tokens", "q_proj"]},
    "head-adapted": {"target_modules": ["lm_head", "q_proj"]},
    "kept-tied-in-training": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
}


@pytest.mark.parametrize("lora", TIED.values(), ids=TIED)
def test_tied_embeddings_that_the_adapter_tells_apart_are_both_written(tmp_path: Path, lora: dict[str, Any]) -> None:
    make_job(tmp_path, lora=lora, tie_word_embeddings=True)
    merge(job(tmp_path))
    merged = load(tmp_path / "merged")
    assert merged.config.tie_word_embeddings is False
    ids = torch.arange(20)[None]
    expected = PeftModel.from_pretrained(load(tmp_path / "base"), tmp_path / "adapter")(ids).logits
    assert torch.allclose(merged(ids).logits, expected, atol=1e-4)


def test_tied_embeddings_that_the_adapter_leaves_alone_stay_tied(tmp_path: Path) -> None:
    make_job(tmp_path, tie_word_embeddings=True)
    merge(job(tmp_path))
    assert load(tmp_path / "merged").config.tie_word_embeddings is True
    assert "lm_head.weight" not in merged_tensors(tmp_path)
