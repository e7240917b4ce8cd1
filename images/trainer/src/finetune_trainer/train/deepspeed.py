"""The job's DeepSpeed fields as a DeepSpeed configuration."""

from __future__ import annotations

from typing import Any

from finetune_operator.api.method import DeepSpeed, Offload
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.deepspeed_conflicts import deepspeed_conflicts

_FILLED_IN = "auto"
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
    conflicts = list(deepspeed_conflicts(spec))
    if conflicts:
        raise StageFailure(ExitCode.INVALID_SPEC, "\n".join(conflicts))
    return _merge(spec.deepspeed.raw_config or {}, {**_AUTO, "zero_optimization": _zero(spec.deepspeed)})


def begin_deepspeed(spec: FineTuneJobSpec, *, is_gpu: bool) -> None:
    """Have DeepSpeed know the processes before stage 3 cuts the model up while it is loaded.

    transformers does so for GPUs only; on CPUs DeepSpeed would take each process for the only one.
    """
    if spec.deepspeed is not None:
        import deepspeed

        deepspeed.init_distributed(dist_backend="nccl" if is_gpu else "gloo", verbose=False)


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


def _merge(raw: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    for key, value in fields.items():
        if isinstance(value, dict):
            raw[key] = _merge(dict(raw.get(key) or {}), value)
        elif raw.get(key, _FILLED_IN) == _FILLED_IN:
            raw[key] = value
    return raw
