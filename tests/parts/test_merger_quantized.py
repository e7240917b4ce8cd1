"""Merging adapters that were trained on quantised weights: bitsandbytes' own numbers, and the choice of what to fold into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.integrations.bitsandbytes import dequantize_bnb_weight

from finetune_merger import make, quantized, writing
from finetune_merger.architecture import quantized_names, skeleton
from finetune_merger.base_choice import DEQUANTIZED, ORIGINAL, BaseChoice, closer
from finetune_merger.checkpoint import Checkpoint
from finetune_merger.merged import Merged
from finetune_merger.quantized import Dequantized
from finetune_merger.samples import sample_rows
from finetune_merger.stage import merge
from finetune_merger.writer import Shard
from finetune_operator.api.delivery import QuantizedBase
from finetune_operator.api.method import Quantization, QuantizationType
from finetune_operator.api.run import RunConfig
from tiny_models import job, load, save_adapter, save_base

# bitsandbytes' kernels for the CPU want rows of whole groups of 64 weights; those for GPUs do not.
SHAPE = {"hidden_size": 128, "intermediate_size": 192}
NF4 = Quantization()
FORMATS = {
    "nf4-nested": NF4,
    "nf4": Quantization(double_quantization=False),
    "fp4-nested": Quantization(type=QuantizationType.FP4),
    "int8": Quantization(bits=8),
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "attention-only": {"target_modules": ["q_proj", "v_proj"]},
    "modules-to-save": {"modules_to_save": ["embed_tokens", "lm_head"]},
}


def as_transformers_loads(base: Path, quantization: Quantization) -> Any:
    """The base model as the trainer has it, quantised by transformers and bitsandbytes."""
    if quantization.bits == 8:
        settings = BitsAndBytesConfig(load_in_8bit=True)
    else:
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization.type.value.lower(),
            bnb_4bit_use_double_quant=quantization.double_quantization,
        )
    return AutoModelForCausalLM.from_pretrained(base, dtype="auto", quantization_config=settings)


def dequantized(base: Path, quantization: Quantization = NF4) -> Dequantized:
    return Dequantized(Checkpoint.open(base), quantized_names(skeleton(base)), quantization)


def make_job(root: Path, lora: dict[str, Any] | None = None, **base: Any) -> None:
    save_base(root / "base", **{"dtype": torch.bfloat16, "tie_word_embeddings": False, **SHAPE, **base})
    save_adapter(root / "base", root / "adapter", **(lora or {}))


def qlora(root: Path, base: QuantizedBase = QuantizedBase.AUTO, quantization: Quantization = NF4) -> RunConfig:
    return job(
        root,
        method="QLoRA",
        merge={"quantizedBase": base},
        quantization=quantization.model_dump(mode="json", by_alias=True),
    )


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = Checkpoint.open(folder)
    return {name: checkpoint.load(name) for name in checkpoint.tensors}


def merged_by_peft(root: Path, weights: Dequantized | None) -> dict[str, torch.Tensor]:
    """PEFT's merge in fp32, rounded once; of these weights instead of the base model's where given."""
    model = load(root / "base")
    if weights is not None:
        for name, parameter in model.named_parameters():
            parameter.data = weights.load(name).float() if name in weights.tensors else parameter.data
    merged = PeftModel.from_pretrained(model, root / "adapter").merge_and_unload()
    return {name: tensor.bfloat16() for name, tensor in merged.state_dict().items()}


def differing(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> list[str]:
    return [name for name, tensor in found.items() if not torch.equal(tensor, expected[name])]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("quantization", FORMATS.values(), ids=FORMATS)
def test_dequantised_weights_are_those_that_training_computes_with(
    tmp_path: Path, quantization: Quantization, dtype: torch.dtype
) -> None:
    save_base(tmp_path / "base", dtype=dtype, **SHAPE)
    found = dequantized(tmp_path / "base", quantization)
    layers = {
        f"{name}.weight": module
        for name, module in as_transformers_loads(tmp_path / "base", quantization).named_modules()
        if type(module).__name__ in ("Linear4bit", "Linear8bitLt")
    }
    assert found.names == layers.keys()
    for name, layer in layers.items():
        expected = dequantize_bnb_weight(layer.weight, getattr(layer, "state", None))
        assert torch.equal(found.load(name), expected)
        with found.view(name) as rows:
            assert torch.equal(rows[5:12], expected[5:12])


@pytest.mark.parametrize("width", [24, 48, 272])
def test_groups_of_weights_go_on_across_rows(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    torch.manual_seed(4)
    weight = torch.randn(40, width)
    monkeypatch.setattr(quantized, "_BLOCK", 1 << 30)
    whole = quantized._quantized(weight, (40, width), NF4)
    monkeypatch.setattr(quantized, "_BLOCK", 7 * width)
    blocks = quantized._quantized(weight, (40, width), NF4)
    flat = quantized._quantized(weight.view(1, -1), (1, 40 * width), NF4)[:].view(40, width)
    assert torch.equal(whole[:], flat)
    assert torch.equal(blocks[:], flat)
    assert torch.equal(blocks[3:9], flat[3:9])
    # The widest gap of NF4 is 0.304 of a group's largest weight.
    assert (flat - weight).abs().max() < 0.16 * weight.abs().max()


@pytest.mark.parametrize(
    ("adapter", "tied", "kind"),
    [
        *((adapter, False, "nf4-nested") for adapter in ADAPTERS),
        ("modules-to-save", True, "nf4-nested"),
        ("attention-only", True, "int8"),
        ("dora", False, "int8"),
    ],
)
def test_the_policy_says_what_the_adapter_is_folded_into(tmp_path: Path, adapter: str, tied: bool, kind: str) -> None:
    quantization = FORMATS[kind]
    make_job(tmp_path, ADAPTERS[adapter], tie_word_embeddings=tied)
    weights = dequantized(tmp_path / "base", quantization)
    for base, expected in {
        DEQUANTIZED: merged_by_peft(tmp_path, weights),
        ORIGINAL: merged_by_peft(tmp_path, None),
    }.items():
        figures = merge(qlora(tmp_path, base, quantization))
        assert figures["mergeQuantizedBase"] == base
        assert "mergeKlOriginal" not in figures
        assert not differing(tensors_of(tmp_path / "merged"), expected)


def test_by_default_the_weights_closer_to_the_model_as_trained_are_taken_and_both_figures_told(tmp_path: Path) -> None:
    make_job(tmp_path)
    figures = merge(qlora(tmp_path))
    assert figures["mergeQuantizedBase"] == "Dequantized"
    assert figures["mergeKlDequantized"] == figures["mergeKl"]
    assert figures["mergeKlDequantized"] < figures["mergeKlOriginal"]
    record = json.loads((tmp_path / "merged" / make.RECORD).read_text())["figures"]
    assert record == figures
    assert not differing(tensors_of(tmp_path / "merged"), merged_by_peft(tmp_path, dequantized(tmp_path / "base")))


def test_the_divergence_is_that_from_the_model_in_training(tmp_path: Path) -> None:
    make_job(tmp_path, dtype=torch.float32)
    figures = merge(qlora(tmp_path))
    (ids,) = sample_rows(tmp_path / "none.json", tmp_path / "base")
    trained = as_transformers_loads(tmp_path / "base", NF4)
    reference = PeftModel.from_pretrained(trained, tmp_path / "adapter")(ids[None]).logits[0].log_softmax(-1)
    merge(qlora(tmp_path, ORIGINAL))
    found = load(tmp_path / "merged")(ids[None]).logits[0].log_softmax(-1)
    divergence = (reference.exp() * (reference - found)).sum(-1).mean().item()
    assert figures["mergeKlOriginal"] == pytest.approx(divergence, rel=1e-2)


@pytest.mark.parametrize(
    ("original", "of_dequantized", "chosen"), [(0.1, 0.2, ORIGINAL), (0.2, 0.1, DEQUANTIZED), (0.1, 0.1, DEQUANTIZED)]
)
def test_the_smaller_divergence_is_chosen(original: float, of_dequantized: float, chosen: QuantizedBase) -> None:
    choice = closer(original, of_dequantized)
    assert choice.figures() == {
        "mergeQuantizedBase": chosen,
        "mergeKlOriginal": original,
        "mergeKlDequantized": of_dequantized,
    }
    assert BaseChoice.decode(choice.encode()) == choice


def test_where_the_original_is_closer_the_files_are_written_again_and_a_cut_merge_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(tmp_path)
    # No tiny model has one that is closer: the figures are measured, and change places.
    monkeypatch.setattr(make, "closer", lambda original, of_dequantized: closer(of_dequantized, original))
    written, write = [], writing.write_shard

    def die_in_the_second_writing(shard: Shard, *rest: Any) -> None:
        written.append(shard.path.name)
        if len(written) == 2:
            raise KeyboardInterrupt
        write(shard, *rest)

    monkeypatch.setattr(writing, "write_shard", die_in_the_second_writing)
    with pytest.raises(KeyboardInterrupt):
        merge(qlora(tmp_path))
    figures = merge(qlora(tmp_path))
    assert len(written) == 3
    assert figures["mergeQuantizedBase"] == "Original"
    assert figures["mergeKlOriginal"] < figures["mergeKlDequantized"]
    assert not differing(tensors_of(tmp_path / "merged"), merged_by_peft(tmp_path, None))
    assert not (tmp_path / "merged" / make.IDENTITY).exists()


def test_another_policy_is_merged_again(tmp_path: Path) -> None:
    make_job(tmp_path)
    merge(qlora(tmp_path, DEQUANTIZED))
    before = tensors_of(tmp_path / "merged")
    merge(qlora(tmp_path, ORIGINAL))
    assert differing(tensors_of(tmp_path / "merged"), before)


def test_an_adapter_of_plain_lora_leaves_nothing_to_choose(tmp_path: Path) -> None:
    make_job(tmp_path)
    assert not [name for name in merge(job(tmp_path)) if name.startswith(("mergeQuantized", "mergeKlO", "mergeKlD"))]


def test_a_merged_tensor_is_the_same_computed_on_demand_and_from_its_file(tmp_path: Path) -> None:
    make_job(tmp_path)
    run = qlora(tmp_path, DEQUANTIZED)
    merge(run)
    weights = dequantized(tmp_path / "base")
    layout = make.lay_out(weights.base, make_adapter(run), {}, run.spec.merge.dtype, "5GB")
    computed = Merged(tmp_path / "merged", weights, make_adapter(run), layout)
    for name, tensor in tensors_of(tmp_path / "merged").items():
        assert torch.equal(computed.load(name), tensor)
        with computed.view(name) as rows:
            assert torch.equal(rows[1:3], tensor[1:3])


def make_adapter(run: RunConfig) -> Any:
    from finetune_merger.adapter import read_adapter

    return read_adapter(run.paths.adapter)
