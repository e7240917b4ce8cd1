"""Parity of the merged model with base + adapter: measured for real, and lost where it must be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from finetune_merger.checkpoint import Checkpoint
from finetune_merger.parity import Parity, check, compare
from finetune_merger.samples import sample_rows
from finetune_merger.stage import merge
from finetune_merger.streamed import logits, open_streamed
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_trainer.prepare.parity_rows import ROWS, TOKENS
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.store import TRAIN, RowStore
from tiny_models import job, load, save_adapter, save_base
from trainer_runs import chat, identity_model, make_run, write_lines

IDS = torch.arange(2 * 12).view(2, 12) * 7 % 250


def make_job(root: Path, dtype: torch.dtype = torch.float32, tied: bool = False, **lora: object) -> None:
    save_base(root / "base", dtype=dtype, tie_word_embeddings=tied)
    save_adapter(root / "base", root / "adapter", **lora)


def measured(root: Path, rows: list[torch.Tensor]) -> Parity:
    """The merged model against base and adapter, on rows of token ids."""
    base, merged = Checkpoint.open(root / "base"), Checkpoint.open(root / "merged")
    return compare(logits(base, root / "adapter", rows), logits(merged, None, rows))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_streamed_model_computes_the_logits_of_a_loaded_one(tmp_path: Path, dtype: torch.dtype, tied: bool) -> None:
    save_base(tmp_path / "base", dtype=dtype, tie_word_embeddings=tied)
    streamed = open_streamed(Checkpoint.open(tmp_path / "base"))
    assert torch.equal(streamed(input_ids=IDS).logits, load(tmp_path / "base")(input_ids=IDS).logits)


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"use_dora": True},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["lm_head"], "use_dora": True},
    ],
    ids=["lora", "dora", "modules-to-save", "dora-head"],
)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_streamed_model_with_an_adapter_computes_what_peft_does(
    tmp_path: Path, tied: bool, lora: dict[str, object]
) -> None:
    make_job(tmp_path, tied=tied, **lora)
    streamed = open_streamed(Checkpoint.open(tmp_path / "base"), tmp_path / "adapter")
    expected = PeftModel.from_pretrained(load(tmp_path / "base"), tmp_path / "adapter")
    assert torch.equal(streamed(input_ids=IDS).logits, expected(input_ids=IDS).logits)


def test_a_streamed_model_keeps_no_weights_after_it_computed(tmp_path: Path) -> None:
    save_base(tmp_path / "base", tie_word_embeddings=False)
    streamed = open_streamed(Checkpoint.open(tmp_path / "base"))
    streamed(input_ids=IDS)
    assert sum(parameter.untyped_storage().nbytes() for parameter in {*streamed.parameters()}) <= 4 * len(
        list(streamed.parameters())
    )


def test_rows_of_unequal_length_are_compared_without_their_padding(tmp_path: Path) -> None:
    make_job(tmp_path)
    merge(job(tmp_path))
    rows = [torch.arange(5), torch.arange(30, 42)]
    together = measured(tmp_path, rows)
    alone = [measured(tmp_path, [row]) for row in rows]
    weighted = sum(parity.mean_difference * len(row) for parity, row in zip(alone, rows, strict=True)) / 17
    assert together.mean_difference == pytest.approx(weighted, rel=0.2)
    assert together.max_difference < 1e-4


def test_figures_are_those_of_the_definition(tmp_path: Path) -> None:
    make_job(tmp_path, dtype=torch.bfloat16)
    merge(job(tmp_path))
    expected = PeftModel.from_pretrained(load(tmp_path / "base"), tmp_path / "adapter")(IDS[:1]).logits[0]
    found = load(tmp_path / "merged")(IDS[:1]).logits[0]
    parity = measured(tmp_path, [IDS[0]])
    divergence = torch.nn.functional.kl_div(
        found.log_softmax(-1), expected.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    assert parity.max_difference == pytest.approx((found - expected).abs().max().item(), rel=1e-3)
    assert parity.mean_difference == pytest.approx((found - expected).abs().mean().item(), rel=1e-3)
    assert parity.divergence == pytest.approx(divergence.item(), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_corrupted_tensor_is_noticed_in_every_format(tmp_path: Path, dtype: torch.dtype) -> None:
    make_job(tmp_path, dtype=dtype)
    run = job(tmp_path)
    merge(run)
    path = tmp_path / "merged/model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.down_proj.weight"][3] *= -1
    save_file(tensors, path, metadata={"format": "pt"})
    formats = {{torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]}
    parity = measured(tmp_path, [*IDS])
    with pytest.raises(StageFailure) as caught:
        check(parity, formats, None)
    assert caught.value.code is ExitCode.PARITY_LOST


def test_lost_parity_fails_with_both_figures_and_leaves_no_merged_model(tmp_path: Path) -> None:
    make_job(tmp_path, dtype=torch.bfloat16)
    with pytest.raises(StageFailure) as caught:
        merge(job(tmp_path, merge={"maxParityDifference": "1e-6"}))
    failure = caught.value
    assert failure.code is ExitCode.PARITY_LOST
    assert f"{failure.figures['mergeMaxDifference']:.4g}" in failure.message
    assert "at most 1e-06 was expected (merge.maxParityDifference)" in failure.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


@pytest.mark.parametrize(("limit", "passes"), [("0.9", True), ("0.7", False), (None, False)])
def test_the_limit_of_the_spec_wins_over_the_default(limit: str | None, passes: bool) -> None:
    parity = Parity(max_difference=0.8, mean_difference=0.1, divergence=0.0, scale=1.0)
    if passes:
        check(parity, {"BF16"}, limit)
    else:
        with pytest.raises(StageFailure):
            check(parity, {"BF16"}, limit)


@pytest.mark.parametrize("parity", [Parity(float("nan"), 0, 0, 1), Parity(0, 0, float("nan"), 1)])
def test_logits_that_are_not_numbers_are_lost_parity(parity: Parity) -> None:
    with pytest.raises(StageFailure):
        check(parity, {"F32"}, "1e9")


def test_parity_is_measured_on_the_rows_that_prepare_set_aside(tmp_path: Path) -> None:
    lines = [chat(f"question {index} " * 60, "answer") for index in range(10)]
    run = make_run(tmp_path / "job", identity_model(tmp_path / "model"), write_lines(tmp_path / "rows.jsonl", lines))
    prepare(run)
    store = RowStore(run.paths.data / TRAIN)
    expected = [store.row(index).input_ids[:TOKENS].tolist() for index in (0, 3, 6, 9)]
    assert [row.tolist() for row in sample_rows(run.paths.parity_rows, tmp_path)] == expected
    assert {len(row) for row in expected} == {TOKENS}


def test_fewer_rows_than_wanted_are_each_taken_once(tmp_path: Path) -> None:
    rows = write_lines(tmp_path / "rows.jsonl", [chat("one", "two"), chat("three", "four")])
    run = make_run(tmp_path / "job", identity_model(tmp_path / "model"), rows)
    prepare(run)
    assert len(sample_rows(run.paths.parity_rows, tmp_path)) == 2 < ROWS


def test_without_prepared_data_a_prompt_is_taken(tmp_path: Path) -> None:
    save_base(tmp_path / "base")
    (row,) = sample_rows(tmp_path / "none.json", tmp_path / "base")
    assert len(row) == TOKENS
