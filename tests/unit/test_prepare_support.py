"""What a job asks for and cannot have is refused before anything is fetched."""

from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_trainer.prepare.support import check_supported
from trainer_runs import make_run


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"lora": {"dropout": "0.1"}}, "its adapters are not plain (no dropout, DoRA or modulesToSave)"),
        ({"lora": {"dora": True}}, "its adapters are not plain"),
        ({"lora": {"modulesToSave": ["lm_head"]}}, "its adapters are not plain"),
        ({"training": {"fusedKernels": "Disabled"}}, "fusedKernels is Disabled"),
        ({"training": {"labelSmoothing": "0.1"}}, "label smoothing needs the logits of all tokens"),
        ({"deepspeed": {"stage": 2}}, "DeepSpeed runs the model itself"),
    ],
    ids=str,
)
def test_a_base_in_float8_is_refused_where_the_fused_kernels_cannot_be(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(StageFailure) as caught:
        check_supported(float8_run(tmp_path, **fields))
    assert caught.value.code is ExitCode.INVALID_SPEC
    assert f"spec.training.precision: FP8Base is for the fused kernels, but {reason}" in caught.value.message


def test_a_base_in_float8_with_plain_adapters_is_accepted(tmp_path: Path) -> None:
    check_supported(float8_run(tmp_path))


def float8_run(folder: Path, **fields: Any) -> Any:
    training = {"precision": "FP8Base", **fields.pop("training", {})}
    return make_run(folder, folder / "model", folder / "rows.jsonl", method="LoRA", training=training, **fields)
