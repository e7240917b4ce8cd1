"""Combinations of keys that LLaMA-Factory refuses, and those that it accepts but a job cannot follow.

Source: LLaMA-Factory 0.9.5, ``hparams/parser.py`` and the checks of its argument classes.
"""

from __future__ import annotations

from collections.abc import Callable

from finetune_operator.api.method import Method
from finetune_operator.cli.convert.keys import MAPPED
from finetune_operator.cli.convert.names import OPTIMIZERS, SCHEDULERS
from finetune_operator.cli.convert.settings import Settings
from finetune_operator.cli.manifest.problems import show

NO_ROWS = 1e-6
"""val_size up to which LLaMA-Factory holds nothing back."""
_LORA_KEYS = tuple(key for key, mapped in MAPPED.items() if mapped.field.startswith("spec.lora."))
_OTHER_STAGES = {"pt": "training on plain text"} | dict.fromkeys(("rm", "ppo", "dpo", "kto"), "preference training")
_NOT_NEGATIVE = (
    "learning_rate", "num_train_epochs", "weight_decay", "max_grad_norm", "lora_dropout", "val_size", "adam_beta1", "adam_beta2",
    "adam_epsilon", "label_smoothing_factor", "neftune_noise_alpha", "loraplus_lr_ratio",
)  # fmt: skip
_QUANTIZATION_KEYS = ("quantization_type", "double_quantization")


def method_of(settings: Settings) -> Method:
    """What is trained."""
    if settings.text("finetuning_type") == "full":
        return Method.FULL
    return Method.LORA if settings.get("quantization_bit") is None else Method.QLORA


def check_training(settings: Settings) -> None:
    """Report everything that stands in the way of training."""
    for check in _CHECKS:
        check(settings)


def _stage(settings: Settings) -> None:
    stage = settings.text("stage")
    if stage != "sft":
        advice = f"{_OTHER_STAGES[stage]} is not there yet" if stage in _OTHER_STAGES else "correct it"
        settings.findings.problem("stage", f"found {stage}, expected sft; {advice}")
    if not settings.flag("do_train"):
        settings.findings.problem("do_train", "found no true, expected true: a job trains; set do_train: true")
    elif settings.config.values.get("dataset") is None:
        settings.findings.problem("dataset", "found nothing, expected the names of datasets; set it")


def _method(settings: Settings) -> None:
    method = settings.text("finetuning_type")
    if method not in ("lora", "full"):
        settings.findings.problem("finetuning_type", f"found {method}, expected lora or full; use one of them")
    for key in ("use_rslora", "use_dora"):
        if method == "full" and settings.flag(key):
            settings.findings.problem(key, "found true, but it is only for finetuning_type lora; remove it")
    for key in _LORA_KEYS if method == "full" else ():
        if settings.is_set(key) and key not in ("use_rslora", "use_dora"):
            settings.findings.note(key, "is read for finetuning_type lora only")
    _adapter(settings)


def _adapter(settings: Settings) -> None:
    named = settings.names("adapter_name_or_path")
    if not named:
        if settings.is_set("create_new_adapter"):
            settings.findings.note("create_new_adapter", "is read only together with adapter_name_or_path")
        return
    advice = "merge it into the base model first and name the merged model in model_name_or_path"
    if settings.text("finetuning_type") == "full":
        settings.findings.problem("adapter_name_or_path", f"found {named[0]} with finetuning_type full; {advice}")
    if len(named) > 1:
        settings.findings.problem(
            "adapter_name_or_path", f"found {len(named)} adapters, expected one to go on with; merge the others first"
        )
    if settings.flag("create_new_adapter"):
        settings.findings.problem(
            "create_new_adapter", f"found true, which would put a new adapter on top of the old one; {advice}"
        )
    for key in _LORA_KEYS:
        if settings.is_set(key):
            settings.findings.note(key, "the adapter of adapter_name_or_path brings its own, as in LLaMA-Factory")


def _quantization(settings: Settings) -> None:
    bits = settings.get("quantization_bit")
    if bits is None:
        for key in _QUANTIZATION_KEYS:
            if settings.is_set(key):
                settings.findings.note(key, "is read only together with quantization_bit")
        return
    if bits not in (4, 8):
        settings.findings.problem("quantization_bit", f"found {bits}, expected 4 or 8; use one of them")
    if settings.text("finetuning_type") == "full":
        settings.findings.problem(
            "quantization_bit",
            f"found {bits} with finetuning_type full, expected lora; quantised weights are not trained",
        )
    if bits == 8:
        for key in _QUANTIZATION_KEYS:
            if settings.is_set(key):
                settings.findings.note(key, "is read for quantization_bit 4 only")


def _numbers(settings: Settings) -> None:
    for key in _NOT_NEGATIVE:
        if (settings.get(key) or 0) < 0:
            settings.findings.problem(key, f"found {settings.number(key):g}, expected 0 or more; correct it")


def _precision(settings: Settings) -> None:
    if settings.flag("fp16") and settings.flag("bf16"):
        settings.findings.problem("fp16", "found true together with bf16, expected one of them; remove one")


def _rows(settings: Settings) -> None:
    if settings.flag("mask_history") and settings.flag("train_on_prompt"):
        settings.findings.problem(
            "mask_history", "found true together with train_on_prompt, expected one of them; remove one"
        )
    val_size = settings.number("val_size")
    if val_size > NO_ROWS and settings.names("eval_dataset"):
        settings.findings.problem("val_size", "found together with eval_dataset, expected one of them; remove one")
    if val_size == 1 or (val_size > 1 and val_size != int(val_size)):
        found = show(settings.config.values["val_size"])
        settings.findings.problem("val_size", f"found {found}, expected a share below 1, or a number of rows above 1")
    has_rows = val_size > NO_ROWS or bool(settings.names("eval_dataset"))
    for key in ("eval_strategy", "do_eval"):
        if not has_rows and settings.get(key) not in ("no", False):
            text = f"found {show(settings.get(key))}, but no rows to evaluate on; set val_size or eval_dataset, or remove it"
            settings.findings.problem(key, text)
    if settings.flag("load_best_model_at_end") and not has_rows:
        settings.findings.problem(
            "load_best_model_at_end",
            "found true, but no rows to evaluate on; set val_size or eval_dataset, or remove it",
        )


def _steps(settings: Settings) -> None:
    for key in ("logging_steps", "save_steps", "eval_steps"):
        value = settings.get(key)
        if value is not None and value != int(value):
            settings.findings.problem(
                key, f"found {value:g}, expected a whole number of steps; a share of all steps cannot be set"
            )
    if settings.get("save_strategy") == "best":
        settings.findings.problem("save_strategy", "found best, expected steps; the newest checkpoints are kept")
    elif settings.get("save_strategy") == "no":
        steps = int(settings.number("save_steps"))
        text = f"a job always has checkpoints to go on from; one is written every {steps} steps (save_steps)"
        settings.findings.note("save_strategy", text)
    if settings.is_set("save_total_limit") and settings.get("save_total_limit") < 1:
        settings.findings.note("save_total_limit", "the newest 2 checkpoints are kept")


def _schedule(settings: Settings) -> None:
    for key, known in (("lr_scheduler_type", SCHEDULERS), ("optim", OPTIMIZERS)):
        if settings.text(key) not in known:
            settings.findings.problem(
                key, f"found {settings.text(key)}, expected one of {', '.join(known)}; use one of them"
            )
    ratio, steps = settings.get("warmup_ratio"), settings.number("warmup_steps")
    if ratio is not None and not 0 <= ratio < 1:
        settings.findings.problem(
            "warmup_ratio", f"found {ratio:g}, expected a share from 0 to below 1; use warmup_steps for steps"
        )
    if steps < 0 or (steps >= 1 and steps != int(steps)):
        settings.findings.problem(
            "warmup_steps", f"found {steps:g}, expected a whole number of steps, or a share below 1"
        )
    if ratio is not None and settings.is_set("warmup_steps"):
        settings.findings.note("warmup_steps", "warmup_ratio stands beside it and wins")
    if settings.get("max_steps") > 0 and settings.is_set("num_train_epochs"):
        settings.findings.note("num_train_epochs", "max_steps stands beside it and wins")


def _elsewhere(settings: Settings) -> None:
    if settings.text("infer_backend") not in ("", "huggingface"):
        settings.findings.problem(
            "infer_backend", f"found {settings.text('infer_backend')} in a training file; write it into the chat file"
        )
    if settings.is_set("output_dir"):
        settings.findings.note("output_dir", "the job has a folder of its own on its volume")


_CHECKS: tuple[Callable[[Settings], None], ...] = (
    _stage,
    _method,
    _quantization,
    _numbers,
    _precision,
    _rows,
    _steps,
    _schedule,
    _elsewhere,
)
