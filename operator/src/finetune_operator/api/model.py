"""The base model that a job starts from, and an adapter that it goes on with."""

from __future__ import annotations

from pydantic import Field

from finetune_operator.api.base import ApiModel, SecretKeyReference
from finetune_operator.api.source import REVISION_PATTERN, SOURCE_RULES, Source


class Model(ApiModel):
    """The base model to fine-tune."""

    source: Source = Field(json_schema_extra=SOURCE_RULES)
    """Where the model lies: hf://org/name, ms://org/name, pvc://claim/path, s3://bucket/prefix or oci://image."""
    revision: str | None = Field(default=None, min_length=1, max_length=128, pattern=REVISION_PATTERN)
    """Branch, tag or commit of a hub repository; a full commit hash makes the job repeatable. Default: the hub's main branch."""
    token_secret: SecretKeyReference | None = None
    """Secret with the access token for a gated or private repository. For s3:// it holds AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""


class Adapter(ApiModel):
    """An adapter to go on training, instead of a new one. It brings its own rank, scale and target modules."""

    source: Source = Field(json_schema_extra=SOURCE_RULES)
    """Where the adapter lies, in PEFT's format: hf://org/name, ms://org/name, pvc://claim/path or s3://bucket/prefix."""
    revision: str | None = Field(default=None, min_length=1, max_length=128, pattern=REVISION_PATTERN)
    """Branch, tag or commit of a hub repository. Default: the hub's main branch."""
    token_secret: SecretKeyReference | None = None
    """Secret with the access token for a gated or private repository."""
