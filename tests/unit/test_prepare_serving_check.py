"""What could not be served as the job asks is refused before it is trained."""

from typing import Any

import pytest

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_server import vllm_engine
from finetune_trainer.prepare.serving_check import LARGEST_VLLM_RANK, serving_problems

WIDE = {"rank": 1024, "doRA": True, "modulesToSave": ["lm_head"]}


def problems(serving: dict[str, Any] | None, lora: dict[str, Any]) -> list[str]:
    rows = [{"source": "pvc://data/rows.jsonl"}]
    fields = {"model": {"source": "pvc://models/tiny"}, "datasets": rows, "method": "LoRA", "lora": lora}
    return list(serving_problems(FineTuneJobSpec.model_validate(fields | ({"serving": serving} if serving else {}))))


@pytest.mark.parametrize("engine", [{"engine": "VLLM", "gpus": 0}, {"engine": "Auto", "gpus": 1}])
def test_an_adapter_that_vllm_cannot_load_is_refused_with_every_reason(engine: dict[str, Any]) -> None:
    fields = [text.split(":")[0] for text in problems({"mode": "Adapter", **engine}, WIDE)]
    assert fields == ["spec.lora.rank", "spec.lora.doRA", "spec.lora.modulesToSave"]


@pytest.mark.parametrize(
    "serving",
    [
        None,
        {"mode": "Merged", "engine": "VLLM"},
        {"mode": "Adapter", "engine": "Transformers"},
        {"mode": "Adapter", "engine": "Auto", "gpus": 0},
        {"mode": "Adapter", "engine": "VLLM", "enabled": False},
    ],
)
def test_any_other_way_of_serving_takes_every_adapter(serving: dict[str, Any] | None) -> None:
    assert problems(serving, WIDE) == []


def test_the_largest_rank_is_the_one_that_the_server_knows() -> None:
    assert max(vllm_engine._LORA_RANKS) == LARGEST_VLLM_RANK
    assert problems({"mode": "Adapter", "engine": "VLLM"}, {"rank": LARGEST_VLLM_RANK}) == []
