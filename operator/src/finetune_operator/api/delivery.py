"""From trained to served: merging the adapter and serving the model."""

from __future__ import annotations

import enum

from pydantic import Field

from finetune_operator.api.base import ApiModel, Decimal, Quantity, SecretKeyReference
from finetune_operator.api.resources import NodeSelector, Tolerations
from finetune_operator.api.source import PUSH_PATTERN


class MergeDtype(enum.StrEnum):
    """Number format of the merged weights."""

    AUTO = "Auto"
    """The base model's own."""
    BF16 = "BF16"
    FP16 = "FP16"
    FP32 = "FP32"


class QuantizedBase(enum.StrEnum):
    """What an adapter that was trained on quantised weights is folded into."""

    AUTO = "Auto"
    """Whichever answers more like the model that was trained: the smaller Kullback-Leibler divergence on rows of the dataset."""
    ORIGINAL = "Original"
    """The base model's own weights."""
    DEQUANTIZED = "Dequantized"
    """The quantised weights, made dense again: those that the adapter was trained on."""


class Push(ApiModel):
    """Upload the merged model."""

    target: str = Field(min_length=1, max_length=512, pattern=PUSH_PATTERN)
    """Where to: hf://org/name, ms://org/name or s3://bucket/prefix."""
    token_secret: SecretKeyReference | None = None
    """Secret with the token that may write there."""


class Merge(ApiModel):
    """Fold the adapter into the base model. Nothing to do for method Full."""

    enabled: bool = True
    """Merge after training."""
    dtype: MergeDtype = MergeDtype.AUTO
    """Number format of the merged weights."""
    gpus: int = Field(default=0, ge=0, le=1)
    """GPUs for the merge pod: with one, it computes there; the weights still stream through the pod's memory."""
    quantized_base: QuantizedBase = QuantizedBase.AUTO
    """Weights that an adapter of method QLoRA is folded into."""
    max_shard_size: str = Field(default="5GB", max_length=16, pattern=r"^[1-9][0-9]*(MB|GB)$")
    """Largest file of the merged model."""
    max_parity_difference: Decimal | None = None
    """Largest difference of a logit between base + adapter and the merged model; more fails the job. Default: by number format."""
    push: Push | None = None
    """Upload the merged model."""


class ServingMode(enum.StrEnum):
    """What is loaded."""

    MERGED = "Merged"
    """The merged model (method Full: the tuned model)."""
    ADAPTER = "Adapter"
    """The base model with the adapter beside it, un-merged."""


class Engine(enum.StrEnum):
    """The server program."""

    AUTO = "Auto"
    """VLLM where GPUs are given, else Transformers."""
    TRANSFORMERS = "Transformers"
    """`transformers serve`: runs anywhere, for small models and a first look."""
    VLLM = "VLLM"
    """vLLM, for GPUs and load."""


class Serving(ApiModel):
    """Keep the tuned model running behind an OpenAI-compatible endpoint. May be changed at any time."""

    enabled: bool = True
    """Serve the model."""
    mode: ServingMode = ServingMode.MERGED
    """What is loaded."""
    engine: Engine = Engine.AUTO
    """The server program."""
    replicas: int = Field(default=1, ge=0, le=1000)
    """Pods that serve."""
    gpus: int = Field(default=1, ge=0, le=64)
    """GPUs for each pod; 0 serves on the CPU."""
    cpu: Quantity | None = None
    """CPU that each pod requests."""
    memory: Quantity | None = None
    """Memory that each pod requests and is limited to."""
    node_selector: NodeSelector | None = None
    """Labels of the nodes that may serve."""
    tolerations: Tolerations | None = None
    """Taints that the serving pods bear."""
    api_key_secret: SecretKeyReference | None = None
    """Secret with the key that clients have to show. Default: none is asked for."""
    startup_seconds: int = Field(default=1800, ge=10, le=86400)
    """How long a pod may take to answer for the first time."""
