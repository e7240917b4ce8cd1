"""Finds the field that a validation error is about: in the document, and in the API's models."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ABSENT = object()
"""Value of a field that does not stand in the document."""


@dataclass(frozen=True, slots=True)
class Place:
    """A spot in a document."""

    path: str
    """As a user writes it: spec.datasets[0].source."""
    value: Any
    """What stands there, or ABSENT."""
    model: type[BaseModel] | None
    """The model that the last part of the path is a field of."""
    field: FieldInfo | None
    """That field; None where the model has no such field."""


def find(root: type[BaseModel], document: Any, location: tuple[str | int, ...]) -> Place:
    """Follow pydantic's error location. Parts that only tell members of a union apart, or mark a key, are left out."""
    path, value = "", document
    model: type[BaseModel] | None = root
    owner, field = None, None
    for part in location:
        if not _is_step(value, part):
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
        value = _child(value, part)
        if isinstance(part, str):
            owner, field = model, _field(model, part)
            model = model_of(field.annotation) if field else None
    return Place(path.lstrip("."), value, owner, field)


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The model inside an annotation such as ``list[Dataset]`` or ``LoRA | None``; None where there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (model_of(argument) for argument in typing.get_args(annotation))
    return next((model for model in inner if model), None)


def names(model: type[BaseModel]) -> list[str]:
    """Fields of a model as they are written in YAML."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _is_step(value: Any, part: str | int) -> bool:
    if isinstance(part, int):
        return isinstance(value, list)
    # A rule may blame a field inside a block that the document leaves out.
    return part != "[key]" and (isinstance(value, dict) or value is ABSENT)


def _child(value: Any, part: Any) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return ABSENT


def _field(model: type[BaseModel] | None, alias: str) -> FieldInfo | None:
    if model is None:
        return None
    return next((field for name, field in model.model_fields.items() if (field.alias or name) == alias), None)
