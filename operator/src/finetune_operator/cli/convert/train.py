"""A training file as the spec of a FineTuneJob. Where the defaults differ, LLaMA-Factory's are written out."""

from __future__ import annotations

import re
from typing import Any

from finetune_operator.api.method import Method
from finetune_operator.api.resources import AccessMode
from finetune_operator.api.source import Scheme
from finetune_operator.api.tokenization import Compatibility, Packing
from finetune_operator.api.training import CheckpointInterval, EvaluationInterval, Precision, Switch
from finetune_operator.cli.convert.dataset_info import datasets
from finetune_operator.cli.convert.deepspeed import deepspeed
from finetune_operator.cli.convert.names import QUANTIZATION_TYPES, decimal
from finetune_operator.cli.convert.options import Options
from finetune_operator.cli.convert.rules import NO_ROWS, check_training, method_of
from finetune_operator.cli.convert.schedule import schedule
from finetune_operator.cli.convert.settings import Settings
from finetune_operator.cli.convert.sources import NoSource, model_source
from finetune_operator.cli.convert.tracking import tracking

Block = dict[str, Any]

SECRETS = {Scheme.HUGGING_FACE: ("hf_hub_token", "hf-hub-token"), Scheme.MODELSCOPE: ("ms_hub_token", "ms-hub-token")}
"""Key with the token in clear text, and the Secret that takes its place."""
_REVISION = re.compile(r"^(hf|ms)://")


def train_spec(settings: Settings, options: Options) -> Block:
    """The spec; what is wrong stands in the settings' findings."""
    check_training(settings)
    method = method_of(settings)
    blocks: Block = {
        "model": model(settings, options),
        "datasets": [_with_token(dataset, settings) for dataset in datasets("dataset", settings, options)],
        "method": method.value,
        "lora": _lora(settings) if method is not Method.FULL and not settings.is_set("adapter_name_or_path") else None,
        "adapter": adapter(settings, options),
        "quantization": _quantization(settings) if method is Method.QLORA else None,
        "deepspeed": deepspeed(settings),
        "tokenization": _tokenization(settings),
        "training": _training(settings),
        "evaluation": _evaluation(settings, options),
        "logging": {"steps": int(settings.number("logging_steps"))},
        "checkpoints": _checkpoints(settings),
        "resources": _resources(settings, options),
        "storage": {"accessMode": AccessMode.READ_WRITE_MANY.value} if options.nodes > 1 else None,
        "tracking": tracking(settings, options),
    }
    return {name: block for name, block in blocks.items() if block is not None}


def model(settings: Settings, options: Options) -> Block:
    """spec.model; without a source where the name is wrong."""
    name = settings.text("model_name_or_path")
    try:
        source = model_source(name, options.hub) if name else ""
    except NoSource as error:
        settings.findings.problem("model_name_or_path", str(error))
        return {}
    result: Block = {"source": source}
    revision = settings.text("model_revision")
    if revision != "main" and _REVISION.match(source):
        result["revision"] = revision
    return _with_token(result, settings)


def adapter(settings: Settings, options: Options) -> Block | None:
    """spec.adapter, or None where the job begins with a new one."""
    named = settings.names("adapter_name_or_path")
    if not named:
        return None
    try:
        source = model_source(named[0], options.hub)
    except NoSource as error:
        settings.findings.problem("adapter_name_or_path", str(error))
        return None
    return _with_token({"source": source}, settings)


def secret(settings: Settings, source: str) -> Block | None:
    """Reference to the Secret for the token that the file holds; None where it holds none for this source."""
    key, name = SECRETS.get(Scheme(source.partition("://")[0]), ("", "")) if source else ("", "")
    if not key or not settings.is_set(key):
        return None
    command = f"kubectl create secret generic {name} --from-literal=token=…"
    settings.findings.note(key, f"a manifest holds no secrets; make Secret {name}: `{command}`")
    return {"name": name}


def _with_token(block: Block, settings: Settings) -> Block:
    reference = secret(settings, block.get("source", ""))
    return block if reference is None else {**block, "tokenSecret": reference}


def _lora(settings: Settings) -> Block:
    rank, targets = settings.get("lora_rank"), settings.names("lora_target")
    switches = {"rsLoRA": settings.flag("use_rslora"), "doRA": settings.flag("use_dora")}
    more: Block = {name: True for name, is_on in switches.items() if is_on}
    if settings.is_set("additional_target"):
        more["modulesToSave"] = settings.names("additional_target")
    return {
        "rank": rank,
        "alpha": settings.get("lora_alpha") or 2 * rank,
        "dropout": decimal(settings.number("lora_dropout")),
        # LLaMA-Factory looks at the first name only.
        "targetModules": ["all"] if targets[:1] == ["all"] else targets,
        **more,
    }


def _quantization(settings: Settings) -> Block:
    bits = settings.get("quantization_bit")
    if bits == 8:
        return {"bits": bits}
    return {
        "bits": bits,
        "type": QUANTIZATION_TYPES[settings.text("quantization_type")].value,
        "doubleQuantization": settings.flag("double_quantization"),
    }


def _tokenization(settings: Settings) -> Block:
    packing = Packing.PLAIN if settings.flag("packing") else Packing.NONE
    switches = {"trainOnPrompt": settings.flag("train_on_prompt"), "maskHistory": settings.flag("mask_history")}
    return {
        **({"template": settings.text("template")} if settings.is_set("template") else {}),
        **({"defaultSystem": settings.text("default_system")} if settings.is_set("default_system") else {}),
        "cutoffLen": settings.get("cutoff_len"),
        "packing": (Packing.SEGMENTED if settings.flag("neat_packing") else packing).value,
        **{name: True for name, is_on in switches.items() if is_on},
        "compatibility": Compatibility.LLAMA_FACTORY.value,
    }


def _training(settings: Settings) -> Block:
    precision = Precision.BF16 if settings.flag("bf16") else Precision.FP16 if settings.flag("fp16") else Precision.FP32
    recomputes = settings.flag("gradient_checkpointing") or not settings.flag("disable_gradient_checkpointing")
    patience = settings.get("early_stopping_steps")
    return {
        **_length(settings),
        "perDeviceBatchSize": settings.get("per_device_train_batch_size"),
        "gradientAccumulationSteps": settings.get("gradient_accumulation_steps"),
        "learningRate": decimal(settings.number("learning_rate")),
        **schedule(settings),
        "weightDecay": decimal(settings.number("weight_decay")),
        "maxGradNorm": decimal(settings.number("max_grad_norm")),
        "precision": precision.value,
        **_regularisation(settings),
        "seed": settings.get("seed"),
        "gradientCheckpointing": (Switch.ENABLED if recomputes else Switch.DISABLED).value,
        **_order(settings),
        **({} if patience is None else {"earlyStoppingPatience": patience}),
    }


def _regularisation(settings: Settings) -> Block:
    keys = {
        "loraPlusRatio": "loraplus_lr_ratio",
        "neftuneNoiseAlpha": "neftune_noise_alpha",
        "labelSmoothing": "label_smoothing_factor",
    }
    return {field: decimal(settings.number(key)) for field, key in keys.items() if settings.get(key)}


def _order(settings: Settings) -> Block:
    strategy = settings.text("train_sampling_strategy")
    # LLaMA-Factory's own key wins over transformers'.
    if settings.flag("disable_shuffling") or strategy == "sequential":
        return {"shuffle": False}
    by_length = settings.flag("group_by_length") or strategy == "group_by_length"
    seed = settings.get("data_seed")
    return {**({"groupByLength": True} if by_length else {}), **({} if seed is None else {"dataSeed": seed})}


def _length(settings: Settings) -> Block:
    if settings.get("max_steps") > 0:
        return {"maxSteps": settings.get("max_steps")}
    epochs = settings.number("num_train_epochs")
    return {"epochs": int(epochs) if epochs == int(epochs) else decimal(epochs)}


def _evaluation(settings: Settings, options: Options) -> Block | None:
    held_out = datasets("eval_dataset", settings, options)
    val_size = settings.number("val_size")
    is_wanted = settings.get("eval_strategy") != "no" or settings.flag("do_eval")
    if len(settings.names("eval_dataset")) > 1:
        settings.findings.problem(
            "eval_dataset", "found several names, expected one; join the datasets' files into one"
        )
    if val_size <= NO_ROWS and not (held_out and is_wanted):
        if held_out:
            settings.findings.note("eval_dataset", "is not evaluated on without eval_strategy; left out")
        return None
    if not is_wanted:
        settings.findings.note(
            "val_size", "holds rows back, as in LLaMA-Factory; here they are evaluated on once, at the end"
        )
    return {
        **_held_out(held_out, val_size, settings),
        **_when_evaluated(settings),
        "perDeviceBatchSize": settings.get("per_device_eval_batch_size"),
        **({"loadBest": True} if settings.flag("load_best_model_at_end") else {}),
    }


def _when_evaluated(settings: Settings) -> Block:
    strategy = settings.text("eval_strategy")
    if strategy == "steps":
        steps = settings.get("eval_steps") or settings.number("logging_steps")
        return {"steps": int(steps)}
    interval = EvaluationInterval.EPOCH if strategy == "epoch" else EvaluationInterval.END
    return {"interval": interval.value}


def _held_out(held_out: list[Block], val_size: float, settings: Settings) -> Block:
    if held_out:
        return {"dataset": _with_token(held_out[0], settings)}
    return {"rows": int(val_size)} if val_size > 1 else {"fraction": decimal(val_size)}


def _checkpoints(settings: Settings) -> Block:
    limit = settings.get("save_total_limit") or 0
    by_epoch = settings.text("save_strategy") == "epoch"
    when = {"interval": CheckpointInterval.EPOCH.value} if by_epoch else {"steps": int(settings.number("save_steps"))}
    return {**when, **({"limit": limit} if limit > 0 else {})}


def _resources(settings: Settings, options: Options) -> Block:
    gpus = 0 if settings.flag("use_cpu") else 1 if options.gpus is None else options.gpus
    if settings.is_set("deepspeed") and gpus * options.nodes == 1:
        settings.findings.note("deepspeed", "one GPU is asked for, which shards nothing; set their number with --gpus")
    return {**({"nodes": options.nodes} if options.nodes > 1 else {}), "gpusPerNode": gpus}
