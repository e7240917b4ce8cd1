"""Checks the modules that the adapters name against the model, built without weights."""

from __future__ import annotations

from pathlib import Path

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.modules import ALL_LINEAR, last_parts


def target_problems(folder: Path, spec: FineTuneJobSpec) -> list[str]:
    """What is wrong with lora.targetModules and lora.modulesToSave; nothing where they name what exists."""
    lora = spec.effective_lora
    named = [("targetModules", name) for name in lora.target_modules if name != ALL_LINEAR]
    named += [("modulesToSave", name) for name in lora.modules_to_save]
    if not spec.is_adapter or not named:
        return []
    existing = _module_names(folder)
    return [
        f"spec.lora.{field}: no module of the model is named {name!r}, found {', '.join(sorted(last_parts(existing)))}"
        for field, name in named
        if not any(module == name or module.endswith(f".{name}") for module in existing)
    ]


def _module_names(folder: Path) -> list[str]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    # Nothing is allocated on the meta device: even a model of hundreds of gigabytes is built in a moment.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    return [name for name, module in model.named_modules() if hasattr(module, "weight")]
