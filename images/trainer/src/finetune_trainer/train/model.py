"""Loads the base model and makes the right part of it trainable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM

from finetune_operator.api.method import LoRA, Quantization, QuantizationType
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.modules import ALL_LINEAR, linear_modules
from finetune_trainer.train.master_weights import splits_masters
from finetune_trainer.train.say import say

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel

    from finetune_trainer.train.device import Device


def load_model(
    folder: Path, spec: FineTuneJobSpec, device: Device, *, longest: int, recomputes: bool, adapter: Path | None = None
) -> PreTrainedModel:
    """The model ready to train, in the checkpoint's number format; see ``make_trainable``.

    ``longest`` is the longest sequence's number of tokens.
    """
    quantization = spec.effective_quantization
    options: dict[str, Any] = {"quantization_config": _quantized(quantization, device)} if quantization else {}
    if device.is_gpu and (quantization or spec.deepspeed is None):
        # Straight from the file to the GPU: by way of the CPU's memory, 15 GB take seconds more.
        options["device_map"] = {"": device.index}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=False, **options)
    model.config.use_cache = False
    splits = splits_masters(model, spec, device, longest)
    if splits:
        say("train: the weights are held and computed with in bf16; the optimizer keeps float32 masters")
    return make_trainable(model, spec, recomputes=recomputes, adapter=adapter, splits=splits)


def make_trainable(
    model: PreTrainedModel,
    spec: FineTuneJobSpec,
    *,
    recomputes: bool,
    adapter: Path | None = None,
    splits: bool = False,
) -> PreTrainedModel:
    """Add new adapters, or those in the folder ``adapter``, and recomputation of activations where wanted.

    Without a folder, this works on the meta device, too.

    Weights that are trained are held in float32, whatever the precision of the computation is, because small updates are
    lost in 16 bits. With ``splits`` they stay as they are: SplitAdamW keeps what the 16 bits lack.
    """
    if recomputes:
        # The re-entrant kind needs inputs with gradients, which frozen embeddings do not give.
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if spec.is_adapter:
        model = _with_adapters(model, spec.effective_lora) if adapter is None else _with_trained(model, adapter)
    # ZeRO's stage 3 has cut the weights up by now, and keeps float32 copies itself.
    if not splits and (spec.deepspeed is None or spec.deepspeed.stage < 3):
        for parameter in model.parameters():
            parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    return model


def _quantized(quantization: Quantization, device: Device) -> BitsAndBytesConfig:
    from transformers import BitsAndBytesConfig

    if quantization.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = torch.bfloat16 if device.is_gpu else torch.float32
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4" if quantization.type is QuantizationType.NF4 else "fp4",
        bnb_4bit_use_double_quant=quantization.double_quantization,
        bnb_4bit_compute_dtype=compute,
    )


def _with_trained(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, adapter, is_trainable=True)


def _with_adapters(model: PreTrainedModel, lora: LoRA) -> PreTrainedModel:
    from peft import LoraConfig, TaskType, get_peft_model

    targets = linear_modules(model) if ALL_LINEAR in lora.target_modules else list(lora.target_modules)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.effective_alpha,
        lora_dropout=float(lora.dropout),
        target_modules=targets,
        use_rslora=lora.rs_lora,
        use_dora=lora.dora,
        modules_to_save=list(lora.modules_to_save) or None,
    )
    return get_peft_model(model, config)
