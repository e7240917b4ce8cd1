"""What the memory estimate promises of any job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config

import tiny_models
from finetune_operator.api.method import DeepSpeed
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.training import Optimizer
from finetune_trainer.estimate.capacity import Verdict, cards_that_fit, quantity_bytes, verdict
from finetune_trainer.estimate.command import show_estimates
from finetune_trainer.estimate.estimate import estimate
from finetune_trainer.estimate.layers import peaks_of
from finetune_trainer.estimate.parts import GIB, Part
from finetune_trainer.estimate.predict import Predictor
from finetune_trainer.estimate.prepared import memory_report, refuse_too_large
from finetune_trainer.estimate.sharding import Trained, sharded_parts
from finetune_trainer.estimate.skeleton import build, shortened
from finetune_trainer.estimate.step import Batch, play_step
from finetune_trainer.estimate.telling import refusal
from finetune_trainer.estimate.workload import Workload
from finetune_trainer.train.device import Device
from finetune_trainer.train.recompute import recomputes_activations

CONFIG = Qwen2Config(
    vocab_size=32000,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
)
PLAIN = {"fusedKernels": "Disabled", "gradientAccumulationSteps": 1}


def spec_of(training: dict[str, Any] | None = None, **fields: Any) -> FineTuneJobSpec:
    return tiny_models.job(Path("/job"), training={**PLAIN, **(training or {})}, **fields).spec


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(CONFIG, torch.bfloat16)


def total(predictor: Predictor, spec: FineTuneJobSpec, length: int = 256, *, recomputes: bool = False) -> int:
    return predictor.predict(spec, Workload(length), recomputes=recomputes).total


@pytest.mark.parametrize("method", ["Full", "LoRA", "QLoRA"])
@pytest.mark.parametrize("recomputes", [False, True])
def test_more_tokens_never_take_less(predictor: Predictor, method: str, recomputes: bool) -> None:
    by_length = [total(predictor, spec_of(method=method), length, recomputes=recomputes) for length in (64, 256, 512)]
    by_batch = [
        total(predictor, spec_of({"perDeviceBatchSize": size}, method=method), recomputes=recomputes) for size in (1, 4)
    ]
    assert by_length == sorted(by_length)
    assert by_batch == sorted(by_batch)


def test_recomputing_activations_takes_less_than_keeping_them(predictor: Predictor) -> None:
    assert total(predictor, spec_of(), recomputes=True) < total(predictor, spec_of(), recomputes=False)


def test_qlora_takes_less_than_lora_and_that_less_than_full(predictor: Predictor) -> None:
    needed = [total(predictor, spec_of(method=method), 64, recomputes=True) for method in ("QLoRA", "LoRA", "Full")]
    assert needed == sorted(needed)


def test_optimizers_take_what_their_state_does(predictor: Predictor) -> None:
    parts = {
        name: predictor.predict(spec_of({"optimizer": name}, method="Full"), Workload(64), recomputes=True).parts
        for name in ("AdamW", "AdamW8bit", "Adafactor", "PagedAdamW8bit")
    }
    weights = parts["AdamW"][Part.WEIGHTS]
    assert parts["AdamW"][Part.OPTIMIZER] == pytest.approx(2 * weights, rel=0.001)
    state = [parts[name].get(Part.OPTIMIZER, 0) for name in ("Adafactor", "AdamW8bit", "AdamW")]
    assert state == sorted(set(state))
    assert Part.OPTIMIZER not in parts["PagedAdamW8bit"]


@pytest.mark.parametrize(
    ("stored", "fields", "weights", "state", "sums"),
    [
        (torch.bfloat16, {}, 2, 10, 0),
        (torch.bfloat16, {"training": {"perDeviceBatchSize": 2}}, 2, 10, 4),
        (torch.bfloat16, {"training": {"precision": "FP16"}}, 4, 8, 0),
        (torch.bfloat16, {"resources": {"gpusPerNode": 2}}, 2, 5, 0),
        (torch.float32, {}, 4, 8, 0),
    ],
    ids=["one pass", "several passes", "FP16", "two GPUs", "float32 files"],
)
def test_full_tuning_with_fused_kernels_keeps_bf16_weights_where_the_trainer_does(
    stored: torch.dtype, fields: dict[str, Any], weights: int, state: int, sums: int
) -> None:
    training = {"gradientAccumulationSteps": 1, **fields.get("training", {})}
    spec = tiny_models.job(Path("/job"), method="Full", **{**fields, "training": training}).spec
    parts = Predictor(CONFIG, stored).predict(spec, Workload(64), recomputes=False, tokens=64).parts
    count = sum(each.numel() for each in build(CONFIG, stored, spec, recomputes=False).parameters())
    assert parts[Part.WEIGHTS] == pytest.approx(weights * count, rel=0.01)
    assert parts[Part.OPTIMIZER] == pytest.approx(state * count, rel=0.01)
    if sums:
        assert sums * count <= parts[Part.GRADIENTS] < (sums + 2) * count
    else:
        assert parts.get(Part.GRADIENTS, 0) <= weights * count


def test_a_step_that_fits_one_pass_is_predicted_without_sums_of_gradients(predictor: Predictor) -> None:
    spec = tiny_models.job(Path("/job"), method="Full", training={"perDeviceBatchSize": 8}).spec
    known, unknown = Workload(2048, step=4200), Workload(2048)
    keeping = estimate(predictor, spec, known, None).keeping
    assert keeping == predictor.predict(spec, known, recomputes=False, tokens=4200)
    several = estimate(predictor, spec, unknown, None).keeping
    assert several is not None
    assert keeping is not None
    assert keeping.total < several.total


def test_a_base_in_float8_is_counted_in_both_orientations_and_beside_the_16_bits_while_it_is_made() -> None:
    def weights(layers: int, precision: str) -> tuple[int, int]:
        spec = tiny_models.job(Path("/job"), training={"precision": precision}).spec
        model = build(shortened(CONFIG, layers), torch.bfloat16, spec, recomputes=False)
        peaks = play_step(model, spec, Batch(1, 64, fused=True)).peaks
        return peaks["start"][Part.WEIGHTS], peaks["forward"][Part.WEIGHTS]

    (_, plain), (made, rounded) = weights(4, "BF16"), weights(4, "FP8Base")
    assert rounded == pytest.approx(plain, rel=0.05)
    of_layers = plain - weights(2, "BF16")[1]
    assert made > plain + 1.5 * of_layers


def test_weights_and_adapters_are_counted_as_the_modules_have_them(predictor: Predictor) -> None:
    parts = predictor.predict(spec_of(lora={"rank": 8}), Workload(64), recomputes=False).parts
    model = build(CONFIG, torch.bfloat16, spec_of(lora={"rank": 8}), recomputes=False)
    frozen = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert parts[Part.ADAPTERS] == 4 * trained
    assert parts[Part.WEIGHTS] == pytest.approx(2 * frozen, rel=0.01)


@pytest.mark.parametrize("training", [{}, {"perDeviceBatchSize": 4}], ids=["small", "large"])
@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_a_few_layers_tell_of_all_of_them(training: dict[str, Any], recomputes: bool, fused: bool) -> None:
    def play(layers: int) -> Any:
        model = build(shortened(CONFIG, layers), torch.bfloat16, spec, recomputes=recomputes)
        return play_step(model, spec, Batch(spec.training.per_device_batch_size, 512, fused=fused))

    spec = spec_of(training, method="Full")
    whole, told = (peaks_of(play, 4, uniform=uniform).most for uniform in (False, True))
    assert sum(told.values()) == pytest.approx(sum(whole.values()), rel=0.01)


def test_zero_takes_less_with_every_stage_and_every_gpu() -> None:
    trained = Trained(count=10_000_000_000, size=20_000_000_000)

    def held(stage: int, devices: int, **offload: str) -> float:
        deepspeed = DeepSpeed.model_validate({"stage": stage, **offload})
        return sum(sharded_parts(20e9, trained, deepspeed, Optimizer.ADAMW, devices).values())

    for devices in (2, 4, 8):
        by_stage = [held(stage, devices) for stage in (0, 1, 2, 3)]
        assert by_stage == sorted(by_stage, reverse=True)
    for stage in (1, 2, 3):
        by_devices = [held(stage, devices) for devices in (2, 4, 8, 64)]
        assert by_devices == sorted(by_devices, reverse=True)
    offloaded = held(3, 4, offloadOptimizer="CPU", offloadParameters="CPU")
    assert offloaded < held(3, 4, offloadOptimizer="CPU") < held(3, 4)


def test_zero_is_predicted_for_whole_jobs(predictor: Predictor) -> None:
    needed = [
        total(predictor, spec_of(method="Full", deepspeed={"stage": stage}, resources={"gpusPerNode": 4}))
        for stage in (1, 2, 3)
    ]
    assert needed == sorted(needed, reverse=True)


def test_activations_are_kept_where_they_fit_and_recomputed_where_not(predictor: Predictor) -> None:
    workload = Workload(1024)
    kept, recomputed = (total(predictor, spec_of(), 1024, recomputes=each) for each in (False, True))
    assert not estimate(predictor, spec_of(), workload, int(kept / 0.8)).prediction.recomputes
    between = int((kept + recomputed) / 2 / 0.9)
    assert estimate(predictor, spec_of(), workload, between).prediction.recomputes


def test_a_job_that_leaves_no_choice_is_predicted_as_it_stands(predictor: Predictor) -> None:
    kept = estimate(predictor, spec_of({"gradientCheckpointing": "Disabled"}), Workload(256), 1 << 40)
    recomputed = estimate(predictor, spec_of({"gradientCheckpointing": "Enabled"}), Workload(256), 1 << 40)
    assert (kept.prediction.recomputes, recomputed.prediction.recomputes) == (False, True)


def test_larger_micro_batches_are_suggested_only_with_the_same_step(predictor: Predictor) -> None:
    spec = spec_of({"gradientAccumulationSteps": 6})
    faster = estimate(predictor, spec, Workload(128), 1 << 40).faster
    assert faster is not None
    assert (faster.training.per_device_batch_size, faster.training.gradient_accumulation_steps) == (6, 1)


def test_what_does_not_fit_is_refused_with_its_parts_and_the_cheapest_remedy(predictor: Predictor) -> None:
    spec = spec_of({"perDeviceBatchSize": 8, "gradientCheckpointing": "Disabled"})
    enough = total(predictor, spec_of({"perDeviceBatchSize": 4}), 1024, recomputes=True)
    failure = refusal(spec, estimate(predictor, spec, Workload(1024), int(enough / 0.89)))
    assert failure.code == ExitCode.INVALID_SPEC
    assert failure.message.startswith("spec.resources.gpuMemory: LoRA, BF16, 8 x 1,024 tokens")
    for word in ("activations", "logits", "GiB", "found"):
        assert word in failure.message
    assert (
        "set training.gradientCheckpointing: Auto, and training.perDeviceBatchSize: 4 with gradientAccumulationSteps: 2"
        in failure.message
    )


def test_where_nothing_harmless_helps_a_lighter_training_is_named(predictor: Predictor) -> None:
    spec = spec_of(method="Full")
    enough = total(predictor, spec_of({"optimizer": "AdamW8bit"}, method="Full"), 64, recomputes=True)
    found = estimate(predictor, spec, Workload(64), int(enough / 0.9) + 1)
    assert found.change is not None
    assert found.change.words == ("training.optimizer: AdamW8bit",)


def test_where_nothing_helps_at_all_that_is_said(predictor: Predictor) -> None:
    hopeless = estimate(predictor, spec_of(), Workload(64), 1 << 20)
    assert hopeless.change is None
    assert "smaller model" in refusal(spec_of(), hopeless).message


@pytest.mark.parametrize(
    ("needed", "capacity", "expected"),
    [
        (90, 100, Verdict.FITS),
        (91, 100, Verdict.TIGHT),
        (130, 100, Verdict.TIGHT),
        (131, 100, Verdict.TOO_LARGE),
        (1, None, Verdict.UNKNOWN),
    ],
)
def test_only_what_is_sure_not_to_fit_is_refused(needed: int, capacity: int | None, expected: Verdict) -> None:
    assert verdict(needed, capacity) is expected


@pytest.mark.parametrize(
    ("text", "size"), [("80Gi", 80 * GIB), ("1.5G", 1_500_000_000), ("512", 512), ("24000M", 24_000_000_000)]
)
def test_quantities_are_read_as_kubernetes_reads_them(text: str, size: int) -> None:
    assert quantity_bytes(text) == size


def test_of_a_card_of_unknown_size_it_is_told_which_would_do() -> None:
    assert cards_that_fit(20 * GIB)[0] == "L4 or A10 (24 GB)"
    assert cards_that_fit(1000 * GIB) == []


def prepared(folder: Path, gpu_memory: str | None = None, **fields: Any) -> RunConfig:
    tiny_models.save_base(folder / "base")
    return tiny_models.job(folder, **fields).model_copy(update={"gpu_memory": gpu_memory})


def test_the_report_has_the_estimate_and_keeps_it_while_it_stands(tmp_path: Path) -> None:
    run = prepared(tmp_path, "80Gi")
    report = memory_report(run, 100, 800, None)
    assert report is not None
    assert report["verdict"] == "Fits"
    assert sum(report["parts"].values()) == report["predictedBytes"]
    assert memory_report(run, 100, 800, {**report, "mark": 1}) == {**report, "mark": 1}
    assert "mark" not in (memory_report(run, 101, 800, {**report, "mark": 1}) or {})


def test_a_job_for_the_cpu_has_no_estimate(tmp_path: Path) -> None:
    assert memory_report(prepared(tmp_path, resources={"gpusPerNode": 0}), 100, 800, None) is None


def test_prepare_refuses_before_rows_are_read_and_after(tmp_path: Path) -> None:
    run = prepared(tmp_path, "100Mi")
    with pytest.raises(StageFailure, match=r"spec\.resources\.gpuMemory: LoRA.*found 0\.1 GiB"):
        refuse_too_large(run, run.paths.base_model)
    with pytest.raises(StageFailure, match="needs about"):
        memory_report(run, 100, 800, None)


def test_a_model_that_cannot_be_acted_out_is_not_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = prepared(tmp_path, "100Mi")
    (run.paths.base_model / "config.json").write_text('{"model_type": "unheard-of"}')
    refuse_too_large(run, run.paths.base_model)
    report = memory_report(run, 100, 800, None)
    assert report is not None
    assert report["verdict"] == "Unknown"
    assert "cannot be predicted" in capsys.readouterr().out


def test_the_command_prints_a_json_line_a_job_and_fails_for_those_that_cannot_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for name, memory in (("roomy", "80Gi"), ("narrow", "100Mi")):
        run = prepared(tmp_path / name, memory, model={"source": f"file://{tmp_path / name / 'base'}"})
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(run.model_copy(update={"name": name}).dump())
    capsys.readouterr()  # what libraries say when the models are made
    code = show_estimates(files, as_json=True)
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [(line["job"], line["verdict"]) for line in lines] == [("roomy", "Fits"), ("narrow", "TooLarge")]
    assert code == ExitCode.INVALID_SPEC
    assert "error: narrow: spec.resources.gpuMemory" in captured.err


@pytest.mark.parametrize(("switch", "expected"), [("Enabled", True), ("Disabled", False), ("Auto", False)])
def test_on_the_cpu_activations_are_recomputed_only_when_asked(tmp_path: Path, switch: str, expected: bool) -> None:
    training = spec_of({"gradientCheckpointing": switch}).training
    assert recomputes_activations(training, Device(is_gpu=False), tmp_path / "report.json") is expected
