"""A model that is run without being loaded: each block's weights are read when it computes and dropped after.

Everything is computed in fp32 from the weights as they are stored, with a few hundred megabytes of memory for a model of
any size. Logits of the base model with its adapter (through PEFT's own code, not the merge's) and of the merged model
are had this way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped,unused-ignore]
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from finetune_merger.adapter import base_name
from finetune_merger.checkpoint import Checkpoint
from finetune_operator.api.outcome import ExitCode, StageFailure

# Stands for every weight that is not loaded: expanded to the weight's shape it takes no memory, and unlike a tensor on
# the meta device it does not make PEFT move the adapter there.
_ABSENT = torch.zeros(1)


def skeleton(folder: Path) -> PreTrainedModel:
    """The model's modules, without weights. Raises StageFailure (MODEL_UNUSABLE) for an architecture that is not known."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with init_empty_weights(include_buffers=False):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"{folder}: not a causal language model that transformers knows ({error}); "
            "use a model whose code is part of transformers.",
        ) from error
    return model.eval()


def tied_names(model: PreTrainedModel) -> dict[str, str]:
    """Parameters that share the values of another: name to name."""
    return dict(model.all_tied_weights_keys) if model.config.tie_word_embeddings else {}


def open_streamed(checkpoint: Checkpoint, adapter: Path | None = None) -> nn.Module:
    """The model of a checkpoint, with an adapter or without, ready to compute."""
    model: Any = skeleton(checkpoint.folder)
    ties = tied_names(model)
    _empty(model)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter), low_cpu_mem_usage=True).eval()
    names = {module: name for name, module in model.named_modules()}
    for unit, modules in _units(model):
        absent = [
            (module, parameter, _stored_name(f"{names[module]}.{parameter}", checkpoint, ties))
            for module in modules
            for parameter, value in module._parameters.items()
            if value is not None and value.data_ptr() == _ABSENT.data_ptr()
        ]
        if absent:
            _stream(unit, absent, checkpoint)
    return model  # type: ignore[no-any-return]


def _stored_name(name: str, checkpoint: Checkpoint, ties: Mapping[str, str]) -> str:
    name = base_name(name)
    stored = name if name in checkpoint.tensors else ties.get(name, name)
    if stored not in checkpoint.tensors:
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"{checkpoint.folder}: the architecture needs {name}, which no file holds; use a complete model whose tensors "
            "are named as its modules are, or set merge.enabled to false.",
        )
    return stored


def _empty(model: nn.Module) -> None:
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = _parameter(_ABSENT.expand(parameter.shape))


def _units(module: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
    """Parts whose weights are read together: each layer of a list, each layer with an adapter, and any other module alone."""
    for child in module.children():
        # Within a layer weights may be used before their module is called: DoRA takes the norms of the base weight.
        if isinstance(module, nn.ModuleList) or isinstance(child, BaseTunerLayer):
            yield child, list(child.modules())
        else:
            yield from _units(child)
    yield module, [module]


def _stream(unit: nn.Module, absent: list[tuple[nn.Module, str, str]], checkpoint: Checkpoint) -> None:
    """Have the unit read its absent weights, as (module, parameter, stored name), before it computes; drop them after."""

    def read(*_: Any) -> None:
        for module, parameter, stored in absent:
            module._parameters[parameter] = _parameter(checkpoint.load(stored).float())

    def drop(*_: Any) -> None:
        for module, parameter, stored in absent:
            module._parameters[parameter] = _parameter(_ABSENT.expand(checkpoint.tensors[stored].shape))

    unit.register_forward_pre_hook(read)
    unit.register_forward_hook(drop)


def _parameter(value: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)
