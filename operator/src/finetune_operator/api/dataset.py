"""The chat datasets that a job learns from."""

from __future__ import annotations

import enum
from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_operator.api.base import ApiModel, Rule, SecretKeyReference
from finetune_operator.api.source import REVISION_PATTERN, SOURCE_RULES, Source

ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
PlaceholderValue = Annotated[str, StringConstraints(max_length=1024)]


class Format(enum.StrEnum):
    """How a row of a dataset is laid out."""

    MESSAGES = "Messages"
    """A list of messages with role and content (the OpenAI layout)."""
    SHAREGPT = "ShareGPT"
    """A list of turns whose column and tag names are set by `columns` and `tags`."""
    ALPACA = "Alpaca"
    """Columns instruction, input, output, and optionally system and history."""


class Columns(ApiModel):
    """Names of the columns to read, where they differ from the format's own."""

    messages: ColumnName | None = None
    """Column with the list of messages."""
    system: ColumnName | None = None
    """Column with the system prompt."""
    tools: ColumnName | None = None
    """Column with the tool descriptions."""
    prompt: ColumnName | None = None
    """Alpaca: column with the instruction."""
    query: ColumnName | None = None
    """Alpaca: column with the further input."""
    response: ColumnName | None = None
    """Alpaca: column with the answer."""
    history: ColumnName | None = None
    """Alpaca: column with earlier turns."""


class Tags(ApiModel):
    """Names of the keys and roles inside a message, where they differ from the format's own."""

    role: ColumnName | None = None
    """Key that holds the role."""
    content: ColumnName | None = None
    """Key that holds the text."""
    user: ColumnName | None = None
    """Role of the user."""
    assistant: ColumnName | None = None
    """Role of the model."""
    system: ColumnName | None = None
    """Role of the system prompt."""
    observation: ColumnName | None = None
    """Role of a tool's result."""
    function: ColumnName | None = None
    """Role of a tool call."""


class Dataset(ApiModel):
    """One chat dataset."""

    rules = (
        Rule(
            cel="!has(self.tags) || self.format == 'ShareGPT'",
            message="tags are only for format ShareGPT",
            holds=lambda dataset: dataset.tags is None or dataset.format is Format.SHAREGPT,
            field=".tags",
        ),
    )

    source: Source = Field(json_schema_extra=SOURCE_RULES)
    """Where the rows lie: hf://org/name, ms://org/name, pvc://claim/path, configmap://name/key, s3://bucket/prefix or oci://image."""
    revision: str | None = Field(default=None, min_length=1, max_length=128, pattern=REVISION_PATTERN)
    """Branch, tag or commit of a hub repository."""
    subset: str | None = Field(default=None, min_length=1, max_length=128)
    """Subset (configuration name) of a hub dataset."""
    split: str = Field(default="train", min_length=1, max_length=64)
    """Split of a hub dataset."""
    format: Format = Format.MESSAGES
    """Layout of a row."""
    columns: Columns | None = None
    """Column names, where they differ from the format's own."""
    tags: Tags | None = None
    """Key and role names inside a message, where they differ from the format's own."""
    max_samples: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Read only the first so many rows."""
    placeholders: dict[Annotated[str, StringConstraints(max_length=64)], PlaceholderValue] | None = Field(
        default=None, max_length=16
    )
    """Text to put in for {{key}} in every row, such as name and author of the identity set."""
    token_secret: SecretKeyReference | None = None
    """Secret with the access token for a gated or private dataset. For s3:// it holds AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""
