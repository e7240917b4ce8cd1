"""Checks what the adapters and the quantisation are to work on against the model, built without weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.modules import ALL_LINEAR, last_parts, linear_modules

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def target_problems(model: PreTrainedModel, spec: FineTuneJobSpec) -> Iterator[str]:
    """What is wrong with lora.targetModules and lora.modulesToSave; nothing where they name what exists."""
    if not spec.is_adapter:
        return
    lora = spec.effective_lora
    modules = {name: module for name, module in model.named_modules() if hasattr(module, "weight")}
    adaptable = {name: module for name, module in modules.items() if _takes_adapter(module)}
    for name in lora.target_modules:
        if name == ALL_LINEAR:
            yield from _no_linear_layer(model)
        elif not _matches(name, adaptable):
            yield _unmatched("targetModules", name, modules, adaptable)
    for name in lora.modules_to_save:
        if not _matches(name, modules):
            yield _unmatched("modulesToSave", name, modules, modules)


def _takes_adapter(module: nn.Module) -> bool:
    # Conv1D is the linear layer of GPT-2.
    return "Linear" in type(module).__name__ or type(module).__name__ in ("Embedding", "Conv1D")


def _matches(name: str, modules: dict[str, nn.Module]) -> bool:
    return any(module == name or module.endswith(f".{name}") for module in modules)


def _unmatched(field: str, name: str, modules: dict[str, nn.Module], usable: dict[str, nn.Module]) -> str:
    expected = ", ".join(sorted(last_parts(usable)))
    if _matches(name, modules):
        return (
            f"spec.lora.{field}: module {name!r} is neither a linear layer nor an embedding, found {expected} that can have "
            "an adapter; name one of these"
        )
    return f"spec.lora.{field}: no module of the model is named {name!r}, found {expected}; name one of these"


def _no_linear_layer(model: PreTrainedModel) -> Iterator[str]:
    if not linear_modules(model):
        yield "spec.lora.targetModules: all stands for linear layers, and the model has none; name modules, or use method Full"


def quantization_problems(model: PreTrainedModel, spec: FineTuneJobSpec) -> Iterator[str]:
    """Why quantising would leave most of the model as it is: bitsandbytes quantises linear layers, and nothing else."""
    quantization = spec.effective_quantization
    if quantization is None:
        return
    embeddings = {id(layer) for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    inside = [module for module in model.modules() if id(module) not in embeddings]
    weights = sum(parameter.numel() for module in inside for parameter in module.parameters(recurse=False))
    linear = sum(
        parameter.numel()
        for module in inside
        if _takes_adapter(module) and type(module).__name__ != "Embedding"
        for parameter in module.parameters(recurse=False)
    )
    if linear * 2 < weights:
        share = round(100 * linear / weights) if weights else 0
        yield (
            f"spec.method: QLoRA quantises linear layers, which hold only {share} % of this model's weights outside the "
            "embeddings (experts that share one tensor cannot be quantised); use method LoRA"
        )
