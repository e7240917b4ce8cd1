"""Keys that change the result and that a FineTuneJob cannot express: an error, unless the value asks for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Refused:
    """What to do instead, and the values that ask for nothing."""

    instead: str
    harmless: tuple[Any, ...] = (False,)
    """Null is always harmless."""


_METHODS = "use finetuning_type lora or full"
_OPTIMIZERS = "use optim with adamw_torch, adamw_8bit, paged_adamw_8bit, adafactor or sgd"
_VOCABULARY = "the model's vocabulary is not changed; extend the model first and train that"
_LOSS = "remove it; the loss is the cross-entropy of the learnt tokens"

REFUSED: Mapping[str, Refused] = {
    # --- model
    "adapter_folder": Refused("remove it; a job trains its own adapter", ()),
    "resize_vocab": Refused(_VOCABULARY),
    "split_special_tokens": Refused("remove it; special tokens in rows become the real ones, as by default"),
    "add_tokens": Refused(_VOCABULARY, ()),
    "add_special_tokens": Refused(_VOCABULARY, ()),
    "new_special_tokens_config": Refused(_VOCABULARY, ()),
    "rope_scaling": Refused("set rope_scaling in the model's own config.json", ()),
    "shift_attn": Refused("remove it; whole attention is used"),
    "mixture_of_depths": Refused("remove it; " + _METHODS, ()),
    "moe_aux_loss_coef": Refused("set router_aux_loss_coef in the model's own config.json", ()),
    "upcast_layernorm": Refused("remove it; normalisation already computes in float32"),
    "upcast_lmhead_output": Refused("remove it; the loss is already computed in float32"),
    "train_from_scratch": Refused("save a model with fresh weights and name it in model_name_or_path"),
    "om_hub_token": Refused("use the Hugging Face hub, ModelScope (--hub modelscope) or a local folder", ()),
    "quantization_method": Refused("use bnb, which quantises while loading", ("bnb",)),
    "quantization_device_map": Refused("remove it; LLaMA-Factory refuses it for training as well", ()),
    "use_kt": Refused("use deepspeed with ZeRO stage 3 and offload"),
    # --- data
    "streaming": Refused("remove it; rows are prepared with flat memory anyway, and max_steps may stay"),
    "mix_strategy": Refused("use concat; weigh datasets by the number of their rows", ("concat",)),
    "interleave_probs": Refused("remove it; datasets are taken one after the other", ()),
    "preprocessing_batch_size": Refused("use 1000, which packing depends on", (1000,)),
    "ignore_pad_token_for_loss": Refused("remove it; padding is never learnt", (True,)),
    "eval_on_each_dataset": Refused("join the evaluation datasets into one"),
    "tool_format": Refused("remove it; the template's own tool format is used", ()),
    "enable_thinking": Refused("use a template without thinking, such as qwen3_nothink", (True,)),
    "preserve_thinking": Refused("remove it; thinking in earlier turns is left out, as by default"),
    "tokenized_path": Refused("name the dataset itself; its tokens are kept on the job's volume and used again", ()),
    # --- method
    "pure_bf16": Refused("use bf16: true; frozen weights keep 16 bits, trained ones are held in float32"),
    "loraplus_lr_embedding": Refused("use 1e-6, the learning rate of adapters on embeddings", (1e-6,)),
    "pissa_init": Refused("remove it; adapters begin with the default initialisation"),
    "use_llama_pro": Refused(_METHODS),
    "use_galore": Refused(_OPTIMIZERS + ", or deepspeed to shard memory"),
    "use_apollo": Refused(_OPTIMIZERS + ", or deepspeed to shard memory"),
    "use_badam": Refused(_OPTIMIZERS + ", or deepspeed to shard memory"),
    "use_adam_mini": Refused(_OPTIMIZERS),
    "use_muon": Refused(_OPTIMIZERS),
    "use_mca": Refused("use deepspeed to shard over GPUs"),
    "use_hyper_parallel": Refused("use deepspeed to shard over GPUs"),
    "use_dft_loss": Refused(_LOSS),
    "use_asft_loss": Refused(_LOSS),
    "use_eaft_loss": Refused(_LOSS),
    "compute_accuracy": Refused("remove it; eval_loss is measured"),
    "use_swanlab": Refused("use report_to with tensorboard, wandb or mlflow"),
    # --- training
    "optim_args": Refused("remove it; the optimizer's defaults are used", ()),
    "optim_target_modules": Refused("remove it; " + _OPTIMIZERS, ()),
    "adafactor": Refused("use optim: adafactor"),
    "average_tokens_across_devices": Refused("remove it; the loss is averaged over the tokens of all devices", (True,)),
    "auto_find_batch_size": Refused("set per_device_train_batch_size"),
    "sortish_sampler": Refused("remove it; rows are shuffled"),
    "dataloader_drop_last": Refused("remove it; the last, short batch is trained on as well"),
    "accelerator_config": Refused("remove it; the trainer has its own", ()),
    "parallelism_config": Refused("use deepspeed to shard over GPUs", ()),
    "fsdp": Refused("use deepspeed with ZeRO stage 3, which shards the same things", (False, "", [], ["off"], "off")),
    "fp8": Refused("use bf16: true; spec.training.precision FP8Base is this project's own way"),
    "no_cuda": Refused("use use_cpu: true"),
    "per_gpu_train_batch_size": Refused("use per_device_train_batch_size", ()),
    "per_gpu_eval_batch_size": Refused("use per_device_eval_batch_size", ()),
    "enable_torch_profiler": Refused("remove it; a profile is no part of a job"),
    "profile_modules": Refused("remove it; a profile is no part of a job", ()),
    # --- evaluation and checkpoints
    "do_predict": Refused("ask the served model instead: finetune chat"),
    "predict_with_generate": Refused("ask the served model instead: finetune chat"),
    "bf16_full_eval": Refused("remove it; evaluation computes as training does"),
    "fp16_full_eval": Refused("remove it; evaluation computes as training does"),
    "eval_delay": Refused("remove it; evaluation begins with the first eval_steps", (0, 0.0)),
    "eval_on_start": Refused("remove it; evaluation begins with the first eval_steps"),
    "metric_for_best_model": Refused("use eval_loss", ("loss", "eval_loss")),
    "greater_is_better": Refused("remove it; a lower loss is better"),
    "resume_from_checkpoint": Refused("remove it; a job goes on from its own newest checkpoint by itself", (False, True)),
    "push_to_hub": Refused("use export_hub_model_id in an export file, or spec.merge.push"),
    # --- export
    "export_legacy_format": Refused("remove it; models are written as safetensors only"),
    "export_quantization_bit": Refused("quantise the merged model with the server's own tool", ()),
}  # fmt: skip

RENAMED: Mapping[str, str] = {
    "evaluation_strategy": "eval_strategy",
    "prompt_template": "template",
    "checkpoint_dir": "adapter_name_or_path",
    "max_source_length": "cutoff_len",
    "max_target_length": "cutoff_len",
    "dev_ratio": "val_size",
    "sft_packing": "packing",
    "efficient_packing": "neat_packing",
}
"""Names of earlier versions that today's parser refuses, and what they are called now."""
