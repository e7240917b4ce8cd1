"""The job's DeepSpeed fields as a DeepSpeed configuration."""

from __future__ import annotations

import copy
from typing import Any

from finetune_operator.api.method import DeepSpeed, Offload
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.spec import FineTuneJobSpec

# "auto" is filled in by transformers from the training arguments, so that the two cannot disagree.
_AUTO: dict[str, Any] = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto"},
}


def deepspeed_config(spec: FineTuneJobSpec) -> dict[str, Any] | None:
    """The configuration, or None where the job does not ask for DeepSpeed.

    Raises StageFailure where the raw configuration contradicts a field of the job.
    """
    if spec.deepspeed is None:
        return None
    raw = copy.deepcopy(spec.deepspeed.config or {})
    problems: list[str] = []
    merged = _merge(raw, {**_AUTO, "zero_optimization": _zero(spec.deepspeed)}, "deepspeed.config", problems)
    if problems:
        raise StageFailure(ExitCode.INVALID_SPEC, "; ".join(problems))
    return merged


def _zero(deepspeed: DeepSpeed) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": deepspeed.stage, "overlap_comm": deepspeed.stage > 0}
    if deepspeed.offload_optimizer is Offload.CPU:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if deepspeed.offload_parameters is Offload.CPU:
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    if deepspeed.stage == 3:
        # Without this, a checkpoint of stage 3 holds no weights that anything but DeepSpeed can read.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return zero


def _merge(raw: dict[str, Any], fields: dict[str, Any], where: str, problems: list[str]) -> dict[str, Any]:
    for key, value in fields.items():
        place = f"{where}.{key}"
        if isinstance(value, dict):
            raw[key] = _merge(dict(raw.get(key) or {}), value, place, problems)
        elif key not in raw or raw[key] == "auto":
            raw[key] = value
        elif value != "auto" and raw[key] != value and key in ("stage", "device"):
            problems.append(f"{place}: {raw[key]!r} contradicts the job's own field, which says {value!r}; remove it")
        elif value == "auto" and key != "enabled":
            problems.append(f'{place}: {raw[key]!r} is set by the job\'s training fields; remove it or write "auto"')
    return raw
