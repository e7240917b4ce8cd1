"""The command line of vLLM for a job."""

from __future__ import annotations

import json
from pathlib import Path

from finetune_operator.api.delivery import Serving
from finetune_operator.api.method import LoRA
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_server import vllm_guard

PROGRAM = "vllm"
KEY_VARIABLE = "VLLM_API_KEY"
"""Where vLLM looks for the key: unlike an argument, the environment of a process is not for everybody to see."""

_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM can be told to make room for."""


def vllm_command(run: RunConfig, serving: Serving, host: str, port: int) -> list[str]:
    """argv of `vllm serve`. Raises StageFailure (INVALID_SPEC) for an adapter that vLLM cannot load un-merged."""
    model = run.paths.served_model(run.spec)
    common = [
        *("--host", host, "--port", str(port)),
        *("--tensor-parallel-size", str(max(1, serving.gpus))),
        *("--middleware", vllm_guard.NAME),
    ]
    if model != run.paths.adapter:
        return [PROGRAM, "serve", str(model), "--served-model-name", run.name, *common]
    return [PROGRAM, "serve", str(run.paths.base_model), *_adapter(run, model), *common]


def _trained_shape(adapter: Path) -> LoRA:
    """The shape of an adapter that brought its own."""
    config = json.loads((adapter / "adapter_config.json").read_bytes())
    modules = config.get("modules_to_save") or []
    return LoRA.model_validate({"rank": config["r"], "doRA": bool(config.get("use_dora")), "modulesToSave": modules})


def _adapter(run: RunConfig, adapter: Path) -> list[str]:
    lora = run.spec.effective_lora if run.spec.adapter is None else _trained_shape(adapter)
    rank = next((size for size in _LORA_RANKS if size >= lora.rank), None)
    beyond = {
        "lora.doRA": lora.dora,
        "lora.modulesToSave": bool(lora.modules_to_save),
        f"lora.rank {lora.rank}": rank is None,
    }
    if any(beyond.values()):
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            f"serving.mode: vLLM cannot load an adapter with {', '.join(name for name, is_set in beyond.items() if is_set)} "
            "un-merged; set serving.mode to Merged, or serving.engine to Transformers.",
        )
    tokenizer = ["--tokenizer", str(adapter)] if (adapter / "tokenizer_config.json").exists() else []
    return [
        *tokenizer,
        # The adapter bears the job's name; the base model beside it needs another.
        *("--served-model-name", f"{run.name}-base"),
        *("--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", f"{run.name}={adapter}"),
    ]
