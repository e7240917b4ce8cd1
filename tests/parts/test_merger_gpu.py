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


OPTIONS: list[dict[str, object]] = [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}]


@pytest.mark.parametrize("lora", OPTIONS, ids=str)
def test_a_gpu_merges_into_the_same_weights_but_for_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: dict[str, object]
) -> None:
    on_gpu, on_cpu = merged_on_both(tmp_path, monkeypatch, lora, "LoRA")
    for name, tensor in on_cpu.items():
        # bf16 has 8 bits: neighbours are at most 2 to the -7 of a value apart.
        assert torch.allclose(on_gpu[name].float(), tensor.float(), rtol=2**-7, atol=1e-6), name


@pytest.mark.parametrize("lora", OPTIONS, ids=str)
def test_a_gpu_merges_into_a_quantised_base_that_differs_by_few_roundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: dict[str, object]
) -> None:
    on_gpu, on_cpu = merged_on_both(tmp_path, monkeypatch, lora, "QLoRA")
    for name, tensor in on_cpu.items():
        # bitsandbytes' two implementations need not round alike what lies between two of its 16 values.
        apart = (on_gpu[name].float() - tensor.float()).abs().mean() / tensor.float().abs().mean()
        assert apart < 0.01, name


def merged_on_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lora: dict[str, object], method: str
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The merged weights of a GPU and of the CPU."""
    save_base(folder / "base", dtype=torch.bfloat16, hidden_size=128, intermediate_size=192)
    save_adapter(folder / "base", folder / "adapter", **lora)
    figures = merge(job(folder, method=method))
    on_gpu = load_file(folder / "merged/model.safetensors")
    (folder / "merged").rename(folder / "on-gpu")
    monkeypatch.setattr(stage, "_device", lambda: CPU)
    assert merge(job(folder, method=method))["mergeKl"] == pytest.approx(figures["mergeKl"], abs=1e-4)
    return on_gpu, load_file(folder / "merged/model.safetensors")
