"""Every key that LLaMA-Factory's parser knows, and what becomes of it here. ``docs/from-llama-factory.md`` is made from this table.

Source: the argument classes of LLaMA-Factory 0.9.5 (``hparams/*_args.py``) and of transformers 4.57 and 5.6
(``TrainingArguments``, ``Seq2SeqTrainingArguments``), which it takes its training keys from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.cli.convert.kinds import Kind
from finetune_operator.cli.convert.noted_keys import DEPENDENT, NOTED
from finetune_operator.cli.convert.refused_keys import REFUSED, RENAMED

TRAIN, EXPORT, CHAT = "train", "export", "chat"
"""What a file is for: the LLaMA-Factory command that reads it."""
_ALL = (TRAIN, EXPORT, CHAT)
_DELIVER = (EXPORT, CHAT)


@dataclass(frozen=True, slots=True)
class Mapped:
    """The key becomes a field, or decides over one."""

    kind: Kind
    default: Any
    """LLaMA-Factory's default, which is written into the manifest where this project's own is another."""
    field: str
    """Path in the manifest, or in words what the key decides."""
    read_by: tuple[str, ...] = (TRAIN,)
    choices: tuple[str, ...] = ()


MAPPED: Mapping[str, Mapped] = {
    # --- model
    "model_name_or_path": Mapped(Kind.TEXT, None, "spec.model.source", _ALL),
    "model_revision": Mapped(Kind.TEXT, "main", "spec.model.revision", _ALL),
    "hf_hub_token": Mapped(Kind.TEXT, None, "spec.model.tokenSecret", _ALL),
    "ms_hub_token": Mapped(Kind.TEXT, None, "spec.model.tokenSecret", _ALL),
    "adapter_name_or_path": Mapped(
        Kind.NAMES, None, "spec.adapter of a training file; ties an export or chat file to the job that trains the adapter", _ALL
    ),
    "create_new_adapter": Mapped(Kind.FLAG, False, "has to be false where adapter_name_or_path is set"),
    "quantization_bit": Mapped(Kind.WHOLE, None, "spec.quantization.bits", _ALL),
    "quantization_type": Mapped(Kind.TEXT, "nf4", "spec.quantization.type", choices=("nf4", "fp4")),
    "double_quantization": Mapped(Kind.FLAG, True, "spec.quantization.doubleQuantization"),
    "disable_gradient_checkpointing": Mapped(Kind.FLAG, False, "spec.training.gradientCheckpointing"),
    "gradient_checkpointing": Mapped(Kind.FLAG, False, "spec.training.gradientCheckpointing"),
    # --- method
    "stage": Mapped(Kind.TEXT, "sft", "has to be sft", _ALL),
    "finetuning_type": Mapped(Kind.TEXT, "lora", "spec.method", _ALL),
    "lora_rank": Mapped(Kind.WHOLE, 8, "spec.lora.rank"),
    "lora_alpha": Mapped(Kind.WHOLE, None, "spec.lora.alpha"),
    "lora_dropout": Mapped(Kind.NUMBER, 0.0, "spec.lora.dropout"),
    "lora_target": Mapped(Kind.NAMES, ["all"], "spec.lora.targetModules"),
    "additional_target": Mapped(Kind.NAMES, None, "spec.lora.modulesToSave"),
    "use_rslora": Mapped(Kind.FLAG, False, "spec.lora.rsLoRA"),
    "use_dora": Mapped(Kind.FLAG, False, "spec.lora.doRA"),
    "loraplus_lr_ratio": Mapped(Kind.NUMBER, None, "spec.training.loraPlusRatio"),
    "deepspeed": Mapped(Kind.ANY, None, "spec.deepspeed"),
    # --- data
    "template": Mapped(Kind.TEXT, None, "spec.tokenization.template", _ALL),
    "default_system": Mapped(Kind.TEXT, None, "spec.tokenization.defaultSystem", _ALL),
    "dataset": Mapped(Kind.NAMES, None, "spec.datasets"),
    "eval_dataset": Mapped(Kind.NAMES, None, "spec.evaluation.dataset"),
    "dataset_dir": Mapped(Kind.TEXT, "data", "where dataset_info.json lies"),
    "max_samples": Mapped(Kind.WHOLE, None, "spec.datasets[].maxSamples"),
    "val_size": Mapped(Kind.NUMBER, 0.0, "spec.evaluation.fraction, or spec.evaluation.rows where above 1"),
    "cutoff_len": Mapped(Kind.WHOLE, 2048, "spec.tokenization.cutoffLen"),
    "packing": Mapped(Kind.FLAG, None, "spec.tokenization.packing"),
    "neat_packing": Mapped(Kind.FLAG, False, "spec.tokenization.packing"),
    "train_on_prompt": Mapped(Kind.FLAG, False, "spec.tokenization.trainOnPrompt"),
    "mask_history": Mapped(Kind.FLAG, False, "spec.tokenization.maskHistory"),
    "disable_shuffling": Mapped(Kind.FLAG, False, "spec.training.shuffle"),
    # --- training
    "do_train": Mapped(Kind.FLAG, False, "has to be true"),
    "output_dir": Mapped(Kind.TEXT, None, "ties an export or chat file to its job; the job has a folder of its own"),
    "num_train_epochs": Mapped(Kind.NUMBER, 3.0, "spec.training.epochs"),
    "max_steps": Mapped(Kind.WHOLE, -1, "spec.training.maxSteps"),
    "per_device_train_batch_size": Mapped(Kind.WHOLE, 8, "spec.training.perDeviceBatchSize"),
    "gradient_accumulation_steps": Mapped(Kind.WHOLE, 1, "spec.training.gradientAccumulationSteps"),
    "learning_rate": Mapped(Kind.NUMBER, 5e-5, "spec.training.learningRate"),
    "lr_scheduler_type": Mapped(Kind.TEXT, "linear", "spec.training.scheduler"),
    "lr_scheduler_kwargs": Mapped(Kind.ANY, None, "spec.training.schedulerOptions"),
    "warmup_ratio": Mapped(Kind.NUMBER, None, "spec.training.warmupRatio"),
    "warmup_steps": Mapped(Kind.NUMBER, 0.0, "spec.training.warmupSteps"),
    "weight_decay": Mapped(Kind.NUMBER, 0.0, "spec.training.weightDecay"),
    "max_grad_norm": Mapped(Kind.NUMBER, 1.0, "spec.training.maxGradNorm"),
    "bf16": Mapped(Kind.FLAG, False, "spec.training.precision"),
    "fp16": Mapped(Kind.FLAG, False, "spec.training.precision"),
    "optim": Mapped(Kind.TEXT, "adamw_torch", "spec.training.optimizer"),
    "adam_beta1": Mapped(Kind.NUMBER, 0.9, "spec.training.adam.beta1"),
    "adam_beta2": Mapped(Kind.NUMBER, 0.999, "spec.training.adam.beta2"),
    "adam_epsilon": Mapped(Kind.NUMBER, 1e-8, "spec.training.adam.epsilon"),
    "neftune_noise_alpha": Mapped(Kind.NUMBER, None, "spec.training.neftuneNoiseAlpha"),
    "label_smoothing_factor": Mapped(Kind.NUMBER, 0.0, "spec.training.labelSmoothing"),
    "seed": Mapped(Kind.WHOLE, 42, "spec.training.seed"),
    "data_seed": Mapped(Kind.WHOLE, None, "spec.training.dataSeed"),
    "group_by_length": Mapped(Kind.FLAG, False, "spec.training.groupByLength"),
    "train_sampling_strategy": Mapped(
        Kind.TEXT, "random", "spec.training.groupByLength, or spec.training.shuffle: false for sequential",
        choices=("random", "sequential", "group_by_length"),
    ),
    "early_stopping_steps": Mapped(Kind.WHOLE, None, "spec.training.earlyStoppingPatience"),
    "use_cpu": Mapped(Kind.FLAG, False, "spec.resources.gpusPerNode: 0"),
    # --- evaluation, logging, checkpoints
    "do_eval": Mapped(Kind.FLAG, False, "spec.evaluation"),
    "eval_strategy": Mapped(Kind.TEXT, "no", "spec.evaluation.interval", choices=("no", "steps", "epoch")),
    "eval_steps": Mapped(Kind.NUMBER, None, "spec.evaluation.steps"),
    "load_best_model_at_end": Mapped(Kind.FLAG, False, "spec.evaluation.loadBest"),
    "per_device_eval_batch_size": Mapped(Kind.WHOLE, 8, "spec.evaluation.perDeviceBatchSize"),
    "logging_steps": Mapped(Kind.NUMBER, 500.0, "spec.logging.steps"),
    "save_steps": Mapped(Kind.NUMBER, 500.0, "spec.checkpoints.steps"),
    "save_strategy": Mapped(Kind.TEXT, "steps", "spec.checkpoints.interval", choices=("no", "steps", "epoch", "best")),
    "save_total_limit": Mapped(Kind.WHOLE, None, "spec.checkpoints.limit"),
    "report_to": Mapped(Kind.ANY, None, "spec.tracking"),
    # --- export and chat
    "export_dir": Mapped(Kind.TEXT, None, "makes the file an export: spec.merge of the job that trains the adapter", (EXPORT,)),
    "export_size": Mapped(Kind.WHOLE, 5, "spec.merge.maxShardSize", (EXPORT,)),
    "export_hub_model_id": Mapped(Kind.TEXT, None, "spec.merge.push", (EXPORT,)),
    "infer_dtype": Mapped(
        Kind.TEXT, "auto", "spec.merge.dtype", _DELIVER, choices=("auto", "float16", "bfloat16", "float32")
    ),
    "infer_backend": Mapped(
        Kind.TEXT, None, "spec.serving.engine", (TRAIN, CHAT), choices=("huggingface", "vllm", "sglang")
    ),
}  # fmt: skip

KNOWN: tuple[str, ...] = (*MAPPED, *NOTED, *DEPENDENT, *REFUSED)
"""Every key; each stands in one of the four tables."""
__all__ = ["CHAT", "DEPENDENT", "EXPORT", "KNOWN", "MAPPED", "NOTED", "REFUSED", "RENAMED", "TRAIN", "Mapped"]
