"""How the weights are tuned: full, LoRA or QLoRA, and how training is sharded."""

from __future__ import annotations

import enum
import json
from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator

from finetune_operator.api.base import ApiModel, Decimal, Rule, cel

ModuleName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.*-]+$")]


class Method(enum.StrEnum):
    """What is trained."""

    FULL = "Full"
    """Every weight of the model."""
    LORA = "LoRA"
    """Low-rank adapters on frozen 16-bit weights (arXiv 2106.09685)."""
    QLORA = "QLoRA"
    """Low-rank adapters on frozen quantised weights (arXiv 2305.14314)."""


class LoRA(ApiModel):
    """Shape of the low-rank adapters."""

    rank: int = Field(default=8, ge=1, le=1024)
    """Rank of the update."""
    alpha: int | None = Field(default=None, ge=1, le=65536)
    """Scale of the update: it is multiplied by alpha / rank. Default: twice the rank."""
    dropout: Decimal = Field(
        default="0", json_schema_extra={"x-kubernetes-validations": [cel("double(self) < 1.0", "must be below 1")]}
    )
    """Dropout on the adapter's input, from 0 to below 1."""
    target_modules: list[ModuleName] = Field(default=["all"], min_length=1, max_length=64)
    """Linear modules that get an adapter, by the last part of their names, or `all` for every linear layer but the head."""
    rs_lora: bool = Field(default=False, alias="rsLoRA")
    """Scale by alpha / sqrt(rank) instead (rank-stabilised LoRA, arXiv 2312.03732)."""
    dora: bool = Field(default=False, alias="doRA")
    """Train magnitude and direction apart (DoRA, arXiv 2402.09353)."""
    modules_to_save: list[ModuleName] = Field(default=[], max_length=16)
    """Modules trained in full beside the adapters, such as embed_tokens or lm_head."""

    rules = (
        Rule(
            cel="double(self.dropout) < 1.0",
            message="must be below 1",
            holds=lambda lora: float(lora.dropout) < 1.0,
            field=".dropout",
        ),
    )

    @property
    def effective_alpha(self) -> int:
        """Alpha as set, or LLaMA-Factory's default of twice the rank."""
        return self.alpha if self.alpha is not None else 2 * self.rank


class QuantizationType(enum.StrEnum):
    """4-bit number formats of bitsandbytes."""

    NF4 = "NF4"
    """Normal float: quantiles of a normal distribution."""
    FP4 = "FP4"
    """4-bit float."""


class Quantization(ApiModel):
    """How QLoRA stores the frozen weights."""

    rules = (
        Rule(
            cel="self.bits in [4, 8]",
            message="must be 4 or 8",
            holds=lambda quantization: quantization.bits in (4, 8),
            field=".bits",
        ),
    )

    bits: int = Field(default=4, ge=4, le=8)
    """Bits a weight: 4 or 8."""
    type: QuantizationType = QuantizationType.NF4
    """Number format for 4 bits."""
    double_quantization: bool = True
    """Quantise the scales of 4-bit blocks as well."""


class Offload(enum.StrEnum):
    """Where ZeRO keeps what does not fit the GPU."""

    NONE = "None"
    """On the GPU."""
    CPU = "CPU"
    """In the host's memory."""


class DeepSpeed(ApiModel):
    """Shard the training state over the GPUs with DeepSpeed ZeRO (arXiv 1910.02054)."""

    rules = (
        Rule(
            cel="self.offloadParameters == 'None' || self.stage == 3",
            message="parameters can be offloaded at stage 3 only",
            holds=lambda deepspeed: deepspeed.offload_parameters is Offload.NONE or deepspeed.stage == 3,
            field=".offloadParameters",
        ),
    )

    stage: int = Field(default=2, ge=0, le=3)
    """ZeRO stage: 1 shards the optimizer, 2 the gradients too, 3 the weights too."""
    offload_optimizer: Offload = Offload.NONE
    """Where the optimizer's state is kept."""
    offload_parameters: Offload = Offload.NONE
    """Where the weights are kept; stage 3 only."""
    # Text and not an object: a schema can bound neither size nor depth of an object of unknown fields, and one that is
    # nested 10000 deep can be stored but not read again, with every FineTuneJob of the cluster.
    config: str | None = Field(default=None, min_length=2, max_length=32768, pattern=r"^\s*\{[\s\S]*\}\s*$")
    """A raw DeepSpeed configuration, as JSON. It is the base; values that contradict the job's own fields are refused before training."""

    @field_validator("config")
    @classmethod
    def _is_json(cls, config: str | None) -> str | None:
        if config is not None:
            _json_object(config)
        return config

    @property
    def raw_config(self) -> dict[str, Any] | None:
        """The raw configuration, parsed."""
        return None if self.config is None else _json_object(self.config)


def _json_object(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply; a DeepSpeed configuration has some five levels") from error
    if not isinstance(parsed, dict):
        raise ValueError("must be one JSON object, as in a DeepSpeed configuration file")
    return parsed
