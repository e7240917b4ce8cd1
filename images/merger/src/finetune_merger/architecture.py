"""A model's modules without their weights, and what follows from them for its tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped,unused-ignore]
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from finetune_operator.api.outcome import ExitCode, StageFailure


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


def quantized_names(model: PreTrainedModel) -> frozenset[str]:
    """Tensors that transformers quantises when it loads the model: every linear layer but the head and what is tied to it."""
    kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    return frozenset(
        f"{name}.weight"
        for name, module in model.named_modules()
        if (type(module) is nn.Linear or isinstance(module, Conv1D)) and should_convert_module(name, kept)
    )
