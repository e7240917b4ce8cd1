"""A whole FineTuneJob manifest, as a user writes it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from finetune_operator.api.names import MAX_JOB_NAME
from finetune_operator.api.spec import FineTuneJobSpec

NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
NAME_MESSAGE = (
    f"metadata.name must be a DNS label of at most {MAX_JOB_NAME} characters that begins with a letter, "
    "because the names of the job's Service and pods are made from it"
)


class ObjectMeta(BaseModel):
    """The part of a manifest's metadata that is read; the rest is Kubernetes' own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    namespace: str | None = None
    uid: str | None = None
    generation: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None

    @field_validator("name")
    @classmethod
    def _fits_children(cls, name: str) -> str:
        if len(name) > MAX_JOB_NAME or not re.fullmatch(NAME_PATTERN, name):
            raise ValueError(f"{NAME_MESSAGE}; found {name!r}")
        return name


class FineTuneJob(BaseModel):
    """A FineTuneJob manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    api_version: Annotated[Literal["finetune-operator.io/v1alpha1"], Field(alias="apiVersion")] = (
        "finetune-operator.io/v1alpha1"
    )
    kind: Literal["FineTuneJob"] = "FineTuneJob"
    metadata: ObjectMeta
    spec: FineTuneJobSpec
    status: dict[str, Any] | None = None

    @classmethod
    def from_manifest(cls, manifest: Any) -> Self:
        """Parse a manifest as strictly as the API server does. Raises pydantic.ValidationError with every wrong field."""
        return cls.model_validate(manifest, by_alias=True, by_name=False)
