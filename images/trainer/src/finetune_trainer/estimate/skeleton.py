"""The model that the trainer would train, with all its modules and none of its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.training import Precision
from finetune_trainer.train.model import make_trainable

_COMPUTE = {Precision.FP16: torch.float16, Precision.FP32: torch.float32}


def load_config(folder: Path) -> PretrainedConfig:
    """The model's configuration."""
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def compute_type(spec: FineTuneJobSpec) -> torch.dtype:
    """Number format that the job's layers compute in."""
    return _COMPUTE.get(spec.training.precision, torch.bfloat16)


def build(
    config: PretrainedConfig, stored: torch.dtype, spec: FineTuneJobSpec, *, recomputes: bool, splits: bool = False
) -> Any:
    """The model on the meta device as ``load_model`` leaves it. ``stored`` is the number format of the weights' files.

    ``splits``: weights that are trained stay in that format; see ``make_trainable``.
    """
    # Building from a configuration writes to it.
    config = type(config).from_dict(config.to_dict())
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=stored)
    model.config.use_cache = False
    if spec.effective_quantization is not None:
        # Imported late: bitsandbytes is slow to import, and most jobs do without.
        from finetune_trainer.estimate.quantized import quantize

        quantize(model, spec.effective_quantization, torch.bfloat16)
    model = make_trainable(model, spec, recomputes=recomputes, splits=splits)
    if spec.deepspeed is not None:
        _compute_alone(model, compute_type(spec))
    return model.train()


def _compute_alone(model: nn.Module, dtype: torch.dtype) -> None:
    """DeepSpeed holds every weight in the format of the computation, and float32 copies apart."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def decoder_layers(model: Any) -> nn.ModuleList:
    """The model's layers, one behind the other; the embedding and the head are not among them."""
    wanted = model.config.get_text_config().num_hidden_layers
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    return next(layers for layers in lists if len(layers) == wanted)


def shortened(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    """The configuration of the same model with fewer layers."""
    fields = config.to_dict()
    whole = fields["num_hidden_layers"]
    short = {key: value[:layers] for key, value in fields.items() if isinstance(value, list) and len(value) == whole}
    return type(config).from_dict({**fields, **short, "num_hidden_layers": layers})


def is_uniform(config: PretrainedConfig) -> bool:
    """Whether all layers are alike, so that few of them tell of many."""
    if "num_hidden_layers" not in config.to_dict() or len(set(getattr(config, "layer_types", None) or ["one"])) > 1:
        return False
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(type(config).from_dict(config.to_dict()))
    kinds = {
        (type(layer), tuple((name, tuple(weight.shape)) for name, weight in layer.named_parameters()))
        for layer in decoder_layers(model)
    }
    return len(kinds) == 1


def act_out(model: nn.Module, mode: FakeTensorMode) -> None:
    """Replace meta tensors by fake ones of the CPU, which operations accept as if they had numbers."""
    fakes: dict[int, Tensor] = {}
    module: Any
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    # Tied weights stay one tensor.
                    tensors[name] = fakes.setdefault(id(tensor), _fake(tensor, mode))
        if hasattr(module, "attach_state"):
            with mode:
                module.attach_state()


def _fake(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    with mode:
        made = torch.empty(tensor.shape, dtype=tensor.dtype)
        return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
