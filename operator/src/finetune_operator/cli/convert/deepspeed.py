"""The ``deepspeed`` key: typed fields where the configuration is one of LLaMA-Factory's examples, else the raw one beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_operator.api.method import Offload
from finetune_operator.cli.convert.settings import Settings
from finetune_operator.cli.manifest.problems import show

Json = dict[str, Any]

_STANDARD_NAME = re.compile(r"ds_z([0-3])(_offload)?_config\.json")
_SET_BY_TRAINING = {
    "train_batch_size": "per_device_train_batch_size",
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
}
# Everything that the example configurations hold beside the stage and the offload: it moves bytes, not results.
_STANDARD: Mapping[str, tuple[Any, ...]] = {
    "zero_allow_untested_optimizer": (True,),
    "fp16.enabled": ("auto",),
    "fp16.loss_scale": (0,),
    "fp16.loss_scale_window": (1000,),
    "fp16.initial_scale_power": (16,),
    "fp16.hysteresis": (2,),
    "fp16.min_loss_scale": (1,),
    "bf16.enabled": ("auto",),
    "comms_config.verbose": (False,),
    "monitor_config.enabled": (True, False),
    "monitor_config.tag": ("DeepSpeedMonitor",),
    "monitor_config.csv_monitor.enabled": (False,),
    "zero_optimization.allgather_partitions": (True,),
    "zero_optimization.allgather_bucket_size": (5e8,),
    "zero_optimization.overlap_comm": (True, False),
    "zero_optimization.reduce_scatter": (True,),
    "zero_optimization.reduce_bucket_size": (5e8, "auto"),
    "zero_optimization.contiguous_gradients": (True,),
    "zero_optimization.round_robin_gradients": (True,),
    "zero_optimization.sub_group_size": (1e9,),
    "zero_optimization.stage3_prefetch_bucket_size": ("auto",),
    "zero_optimization.stage3_param_persistence_threshold": ("auto",),
    "zero_optimization.stage3_max_live_parameters": (1e9,),
    "zero_optimization.stage3_max_reuse_distance": (1e9,),
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": (True,),
    "zero_optimization.offload_optimizer.device": ("cpu", "none"),
    "zero_optimization.offload_optimizer.pin_memory": (True,),
    "zero_optimization.offload_param.device": ("cpu", "none"),
    "zero_optimization.offload_param.pin_memory": (True,),
}


def deepspeed(settings: Settings) -> Json | None:
    """spec.deepspeed, or None where the file does not ask for it."""
    value = settings.get("deepspeed")
    if not value:
        return None
    config = _config(value, settings)
    return None if config is None else _fields(config, settings)


def _config(value: Any, settings: Settings) -> Json | None:
    if isinstance(value, dict):
        return value
    if not isinstance(value, str):
        settings.findings.problem("deepspeed", f"found {show(value)}, expected a path or a configuration")
        return None
    if value.startswith("{"):
        return _parsed(value, value[:40], settings)
    path = next((path for path in (Path(value), settings.config.folder / value) if path.is_file()), None)
    return _by_name(value, settings) if path is None else _parsed(path.read_text(encoding="utf-8"), str(path), settings)


def _parsed(text: str, name: str, settings: Settings) -> Json | None:
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        settings.findings.problem("deepspeed", f"found {name}, which is not JSON at line {error.lineno} ({error.msg})")
        return None
    if isinstance(config, dict):
        return config
    settings.findings.problem("deepspeed", f"found {name} with {show(config)}, expected an object")
    return None


def _by_name(value: str, settings: Settings) -> Json | None:
    """What LLaMA-Factory's example of that name holds: it is often named without being there."""
    name = _STANDARD_NAME.fullmatch(Path(value).name)
    if name is None:
        folder = settings.config.folder.absolute()
        settings.findings.problem(
            "deepspeed", f"found {value}, which is neither in {Path.cwd()} nor in {folder}; correct the path"
        )
        return None
    settings.findings.note("deepspeed", f"{value} is not here; taken for LLaMA-Factory's example of that name")
    zero: Json = {"stage": int(name[1])}
    if name[2]:
        zero["offload_optimizer"] = {"device": "cpu"}
        zero |= {"offload_param": {"device": "cpu"}} if name[1] == "3" else {}
    return {"zero_optimization": zero}


def _fields(config: Json, settings: Settings) -> Json | None:
    zero = config.get("zero_optimization")
    stage = zero.get("stage", 0) if isinstance(zero, dict) else None
    if not isinstance(zero, dict) or stage not in (0, 1, 2, 3) or isinstance(stage, bool):
        text = f"zero_optimization.stage: found {show(stage)}, expected 0, 1, 2 or 3; correct it"
        settings.findings.problem("deepspeed", text)
        return None
    for key, training_key in _SET_BY_TRAINING.items():
        if config.get(key, "auto") != "auto":
            text = f'{key}: found {show(config[key])}, expected "auto"; it is set by {training_key}'
            settings.findings.problem("deepspeed", text)
    fields: Json = {"stage": stage}
    for key, field in (("offload_optimizer", "offloadOptimizer"), ("offload_param", "offloadParameters")):
        if isinstance(zero.get(key), dict) and zero[key].get("device") == "cpu":
            fields[field] = Offload.CPU.value
    if not _is_standard(config):
        fields["config"] = json.dumps(config, indent=2) + "\n"
    return fields


def _is_standard(config: Json) -> bool:
    return all(
        path in _SET_BY_TRAINING or path == "zero_optimization.stage" or value in _STANDARD.get(path, ())
        for path, value in _leaves(config, "")
    )


def _leaves(node: Json, prefix: str) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in node.items():
        path = f"{prefix}{key}"
        pairs += _leaves(value, f"{path}.") if isinstance(value, dict) else [(path, value)]
    return pairs
