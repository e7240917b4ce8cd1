"""What every API model shares: camelCase names, descriptions from docstrings, and rules that hold in CEL and in Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel

GROUP = "finetune-operator.io"
VERSION = "v1alpha1"
KIND = "FineTuneJob"
PLURAL = "finetunejobs"
API_VERSION = f"{GROUP}/{VERSION}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One cross-field rule, checked by the API server (``cel``) and by the local commands (``holds``).

    Both forms say the same; a test feeds the same manifests to both.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    field: str = ""
    """Path of the field to blame, relative to the model, as in ``.lora``."""


class ApiModel(BaseModel):
    """Base of every model in the API: frozen, strict about unknown fields, described by the strings below its fields."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        use_enum_values=False,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        broken = [rule for rule in self.rules if not rule.holds(self)]
        if broken:
            raise ValueError("; ".join(f"{rule.field.lstrip('.')}: {rule.message}".lstrip(": ") for rule in broken))
        return self

    def to_manifest(self) -> dict[str, Any]:
        """The model as it stands in a manifest: camelCase names, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


DECIMAL_PATTERN = r"^(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?$"
DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"

# The API holds no floats (Kubernetes API conventions): rates and losses are decimal strings, never negative here.
Decimal = Annotated[str, StringConstraints(max_length=24, pattern=DECIMAL_PATTERN)]
DnsLabel = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=DNS_LABEL_PATTERN)]
DnsSubdomain = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN_PATTERN)]
Quantity = Annotated[str, StringConstraints(min_length=1, max_length=20, pattern=QUANTITY_PATTERN)]
# A whole number may be written bare, a fraction as a decimal string: 3 or "0.5".
WholeOrDecimal = Annotated[
    int | Annotated[str, StringConstraints(max_length=24, pattern=DECIMAL_PATTERN)],
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 24, "pattern": DECIMAL_PATTERN}),
]


def cel(rule: str, message: str, **more: str) -> dict[str, Any]:
    """One entry of ``x-kubernetes-validations`` for a field's ``json_schema_extra``."""
    return {"rule": rule, "message": message, **more}


class SecretKeyReference(ApiModel):
    """A key of a Secret in the job's own namespace. The kubelet mounts it; the operator never reads it."""

    name: DnsSubdomain
    """Name of the Secret."""
    key: str = Field(default="token", min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")
    """Key inside the Secret."""
