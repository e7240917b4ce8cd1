"""Merging on a GPU, against merging on the CPU. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune_merger import stage
from finetune_merger.rows import CPU
from finetune_merger.stage import merge
from tiny_models import job, save_adapter, save_base

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("method", ["LoRA", "QLoRA"])
@pytest.mark.parametrize("lora", [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}], ids=str)
def test_a_gpu_merges_into_the_same_weights_but_for_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: dict[str, object], method: str
) -> None:
    save_base(tmp_path / "base", dtype=torch.bfloat16, hidden_size=128, intermediate_size=192)
    save_adapter(tmp_path / "base", tmp_path / "adapter", **lora)
    figures = merge(job(tmp_path, method=method))
    on_gpu = load_file(tmp_path / "merged/model.safetensors")
    (tmp_path / "merged").rename(tmp_path / "on-gpu")
    monkeypatch.setattr(stage, "_device", lambda: CPU)
    assert merge(job(tmp_path, method=method))["mergeKl"] == pytest.approx(figures["mergeKl"], abs=1e-4)
    for name, tensor in load_file(tmp_path / "merged/model.safetensors").items():
        # bf16 has 8 bits: neighbours are at most 2 to the -7 of a value apart.
        assert torch.allclose(on_gpu[name].float(), tensor.float(), rtol=2**-7, atol=1e-6), name
