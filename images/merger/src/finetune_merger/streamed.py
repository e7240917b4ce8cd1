"""A model that is run without being loaded: weights are read when they are computed with and dropped after.

Everything is computed in fp32 from the weights as they are stored, with a few hundred megabytes of memory for a model of
any size. Logits of the base model with its adapter (through PEFT's own code, not the merge's) and of the merged model
are had this way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from finetune_merger.adapter import base_name
from finetune_merger.architecture import skeleton, tied_names
from finetune_merger.checkpoint import FLOATS
from finetune_merger.streamed_layers import stream_embedding, stream_linear
from finetune_merger.weights import Weights
from finetune_operator.api.outcome import ExitCode, StageFailure

_Absent = tuple[nn.Module, str, str]
"""Module, name of its parameter, and name of the tensor that holds it."""


def logits(weights: Weights, adapter: Path | None, rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logits (tokens of all rows, vocabulary) after each token, in fp32, of a model with an adapter or without."""
    return logits_of(open_streamed(weights, adapter), rows, weights.device)


def logits_of(model: nn.Module, rows: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Logits of a model that is open already."""
    lengths = torch.tensor([len(row) for row in rows])
    # Padding stands on the right, so that no real token sees it.
    ids = pad_sequence(list(rows), batch_first=True)
    mask = torch.arange(ids.shape[1])[None, :] < lengths[:, None]
    ids, mask = ids.to(device), mask.to(device)
    with torch.inference_mode():
        found = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits
    real: torch.Tensor = found[mask].float()
    return real


def open_streamed(weights: Weights, adapter: Path | None = None) -> nn.Module:
    """The model of these weights, with an adapter or without, ready to compute."""
    model: Any = skeleton(weights.folder)
    ties = tied_names(model)
    # Stands for every weight that is not loaded: expanded to the weight's shape it takes no memory, and unlike a tensor
    # on the meta device it does not make PEFT move the adapter there.
    absent = torch.zeros(1, device=weights.device)
    _empty(model, absent)
    if adapter is not None:
        where = str(weights.device)  # else PEFT puts retrained modules on a GPU wherever there is one
        model = PeftModel.from_pretrained(model, str(adapter), low_cpu_mem_usage=True, torch_device=where).eval()
    names = {module: name for name, module in model.named_modules()}
    for unit, modules in list(_units(model)):
        found = [
            (module, parameter, _stored_name(f"{names[module]}.{parameter}", weights, ties))
            for module in modules
            for parameter, value in module._parameters.items()
            if value is not None and value.data_ptr() == absent.data_ptr()
        ]
        rest = [entry for entry in found if not _stream_rows(*entry, weights)]
        if rest:
            _stream(unit, rest, weights, absent)
    # A weight that is used before it was read must not pass for zeros.
    absent.fill_(torch.nan)
    return model  # type: ignore[no-any-return]


def _stored_name(name: str, weights: Weights, ties: Mapping[str, str]) -> str:
    name = base_name(name)
    stored = name if name in weights.tensors else ties.get(name, name)
    if stored not in weights.tensors:
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"{weights.folder}: the architecture needs {name}, which no file holds; use a complete model whose tensors "
            "are named as its modules are, or set merge.enabled to false.",
        )
    return stored


def _empty(model: nn.Module, absent: torch.Tensor) -> None:
    for module in model.modules():
        module._buffers |= {
            name: value.to(absent.device) for name, value in module._buffers.items() if value is not None
        }
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = _parameter(absent.expand(parameter.shape))


def _units(module: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
    """Parts whose weights are read together: each layer of a list, each layer with an adapter, and any other module alone."""
    for child in module.children():
        # Within a layer weights may be used before their module is called, as models do with convolutions.
        if isinstance(module, nn.ModuleList) or isinstance(child, BaseTunerLayer):
            yield child, list(child.modules())
        else:
            yield from _units(child)
    yield module, [module]


def _stream_rows(module: nn.Module, parameter: str, stored: str, weights: Weights) -> bool:
    """Have a large weight read by blocks of its rows; False where the module is none of those that can."""
    if parameter != "weight" or weights.tensors[stored].dtype not in FLOATS:
        return False
    if type(module) is nn.Linear:
        stream_linear(module, weights, stored)
        return True
    if isinstance(module, nn.Embedding) and _takes_token_ids(type(module)):
        stream_embedding(module, weights, stored)
        return True
    return False


def _takes_token_ids(kind: type) -> bool:
    # Other embeddings may be called with anything: positions, masks.
    return kind is nn.Embedding or kind.__name__.endswith("ScaledWordEmbedding")


def _stream(unit: nn.Module, entries: list[_Absent], weights: Weights, absent: torch.Tensor) -> None:
    """Have the unit read its weights before it computes, and drop them after."""

    def read(*_: Any) -> None:
        for module, parameter, stored in entries:
            module._parameters[parameter] = _parameter(weights.load(stored).float())

    def drop(*_: Any) -> None:
        for module, parameter, stored in entries:
            module._parameters[parameter] = _parameter(absent.expand(weights.tensors[stored].shape))

    unit.register_forward_pre_hook(read)
    unit.register_forward_hook(drop)


def _parameter(value: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)
