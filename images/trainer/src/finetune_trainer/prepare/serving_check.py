"""Whether what is trained could be served as the job asks: said before training, not after it."""

from __future__ import annotations

from collections.abc import Iterator

from finetune_operator.api.delivery import Engine, Serving, ServingMode
from finetune_operator.api.spec import FineTuneJobSpec

LARGEST_VLLM_RANK = 512
"""The largest --max-lora-rank that vLLM can be told."""
_WAY_OUT = "set spec.serving.mode to Merged, or spec.serving.engine to Transformers"


def serving_problems(spec: FineTuneJobSpec) -> Iterator[str]:
    """Fields of the adapter that vLLM cannot load un-merged; nothing for any other way of serving."""
    if spec.serving is None or not _is_adapter_in_vllm(spec.serving):
        return
    lora = spec.effective_lora
    if lora.rank > LARGEST_VLLM_RANK:
        yield (
            f"spec.lora.rank: {lora.rank} is more than the {LARGEST_VLLM_RANK} that vLLM takes in an adapter served "
            f"un-merged; lower it, {_WAY_OUT}"
        )
    if lora.dora:
        yield f"spec.lora.doRA: vLLM cannot serve a DoRA adapter un-merged; {_WAY_OUT}"
    if lora.modules_to_save:
        found = ", ".join(lora.modules_to_save)
        yield f"spec.lora.modulesToSave: vLLM cannot serve an adapter with whole modules ({found}) un-merged; {_WAY_OUT}"


def _is_adapter_in_vllm(serving: Serving) -> bool:
    uses_vllm = serving.engine is Engine.VLLM or (serving.engine is Engine.AUTO and serving.gpus > 0)
    return serving.enabled and serving.mode is ServingMode.ADAPTER and uses_vllm
