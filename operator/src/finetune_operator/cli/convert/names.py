"""Names on both sides: jobs after files, schedulers, optimizers and number formats, and numbers as decimal strings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from finetune_operator.api.delivery import Engine, MergeDtype
from finetune_operator.api.method import QuantizationType
from finetune_operator.api.names import MAX_JOB_NAME
from finetune_operator.api.training import Optimizer, Scheduler
from finetune_operator.cli.manifest.documents import STANDARD_INPUT

SCHEDULERS: Mapping[str, Scheduler] = {
    "linear": Scheduler.LINEAR,
    "cosine": Scheduler.COSINE,
    "cosine_with_restarts": Scheduler.COSINE_WITH_RESTARTS,
    "cosine_with_min_lr": Scheduler.COSINE_WITH_MIN_LR,
    "polynomial": Scheduler.POLYNOMIAL,
    "constant": Scheduler.CONSTANT,
    "constant_with_warmup": Scheduler.CONSTANT_WITH_WARMUP,
    "inverse_sqrt": Scheduler.INVERSE_SQRT,
}
OPTIMIZERS: Mapping[str, Optimizer] = {
    "adamw_torch": Optimizer.ADAMW,
    "adamw_torch_fused": Optimizer.ADAMW,
    "adamw_hf": Optimizer.ADAMW,
    "adamw_8bit": Optimizer.ADAMW_8BIT,
    "adamw_bnb_8bit": Optimizer.ADAMW_8BIT,
    "paged_adamw_8bit": Optimizer.PAGED_ADAMW_8BIT,
    "paged_adamw_32bit": Optimizer.PAGED_ADAMW,
    "paged_adamw": Optimizer.PAGED_ADAMW,
    "adafactor": Optimizer.ADAFACTOR,
    "sgd": Optimizer.SGD,
}
QUANTIZATION_TYPES: Mapping[str, QuantizationType] = {"nf4": QuantizationType.NF4, "fp4": QuantizationType.FP4}
MERGE_DTYPES: Mapping[str, MergeDtype] = {
    "auto": MergeDtype.AUTO,
    "bfloat16": MergeDtype.BF16,
    "float16": MergeDtype.FP16,
    "float32": MergeDtype.FP32,
}
ENGINES: Mapping[str, Engine] = {"huggingface": Engine.TRANSFORMERS, "vllm": Engine.VLLM}

_HASH = 6
"""Characters of the hash that tells apart long names with the same beginning."""


def job_name(file: str) -> str:
    """The file's name without its ending as a DNS label that begins with a letter."""
    stem = "job" if file == STANDARD_INPUT else Path(file).stem
    label = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    name = label if label[:1].isalpha() else f"job-{label}".strip("-")
    if len(name) <= MAX_JOB_NAME:
        return name
    digest = hashlib.sha256(stem.encode()).hexdigest()[:_HASH]
    return f"{name[: MAX_JOB_NAME - _HASH - 1].rstrip('-')}-{digest}"


def decimal(number: float) -> str:
    """The shortest decimal string that reads back as the same float: 0.05, 1e-4, 3."""
    value = Decimal(repr(number)).normalize()
    if value == 0:
        return "0"
    if 1e-3 <= abs(number) < 1e6:
        return f"{value:f}"
    digits, _, exponent = f"{value:e}".partition("e")
    return f"{digits}e{int(exponent)}"
