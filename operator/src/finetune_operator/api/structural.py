"""From a pydantic model to a Kubernetes structural schema. Anything that the API server would refuse fails here, with its path.

What is allowed: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from finetune_operator.api.base import ApiModel, cel

Schema = dict[str, Any]

_FORBIDDEN = frozenset(
    [
        "$ref",
        "$defs",
        "anyOf",
        "oneOf",
        "allOf",
        "not",
        "discriminator",
        "patternProperties",
        "prefixItems",
        "const",
        "uniqueItems",
        "examples",
        "readOnly",
        "writeOnly",
        "deprecated",
        "propertyNames",
    ]
)


class _Generator(GenerateJsonSchema):
    """Pydantic's generator without what a structural schema cannot hold."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        # `X | None` means that the field may be absent; the API has no nulls.
        return self.generate_inner(schema["schema"])

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        return {"type": "string", "enum": list(schema["expected"])}

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        return {"type": "string", "enum": [member.value for member in schema["members"]]}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        # Unknown fields are refused by the API server itself (strict field validation), not by the schema.
        generated = super().model_schema(schema)
        generated.pop("additionalProperties", None)
        return _with_rules(generated, schema["cls"])

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        generated = super().dict_schema(schema)
        generated.pop("propertyNames", None)  # not structural; the values are bounded, the keys by maxProperties
        return generated


def _with_rules(schema: Schema, model: type[Any]) -> Schema:
    if not issubclass(model, ApiModel) or not model.rules:
        return schema
    validations = [cel(r.cel, r.message, **({"fieldPath": r.field} if r.field else {})) for r in model.rules]
    return {**schema, "x-kubernetes-validations": [*schema.get("x-kubernetes-validations", []), *validations]}


def structural_schema(model: type[BaseModel]) -> Schema:
    """Schema of the model, references inlined. Raises ValueError naming the path of what cannot be expressed."""
    raw = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    return _structural(raw, raw.pop("$defs", {}), model.__name__, ())


def _structural(node: Schema, definitions: Schema, path: str, seen: tuple[str, ...]) -> Schema:
    node, seen = _inlined(node, definitions, path, seen)
    node.pop("title", None)
    node = _bounds(node)
    node = _default(node)
    if node.get("additionalProperties") is True:
        del node["additionalProperties"]
        node["x-kubernetes-preserve-unknown-fields"] = True
    _refuse(node, path)
    return _children(node, definitions, path, seen)


def _inlined(node: Schema, definitions: Schema, path: str, seen: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
    node = dict(node)
    reference = node.pop("$ref", None)
    if reference is None:
        return node, seen
    name = reference.rsplit("/", 1)[-1]
    if name in seen:
        raise ValueError(f"{path}: {name} contains itself; a CRD cannot be recursive")
    # What stands at the field (description, default, validations) wins over what stands at the type.
    merged = {**definitions[name], **node}
    validations = [*definitions[name].get("x-kubernetes-validations", []), *node.get("x-kubernetes-validations", [])]
    if validations:
        merged["x-kubernetes-validations"] = validations
    return merged, (*seen, name)


def _bounds(node: Schema) -> Schema:
    """Draft 2020's numeric exclusive bounds in the form of draft 4, which CRDs use."""
    node = dict(node)
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in node:
            node[inclusive], node[exclusive] = node[exclusive], True
    if "integer" == node.get("type") and "format" not in node:
        node["format"] = "int64"
    return node


def _default(node: Schema) -> Schema:
    """The node without a null default, and with a nested default that holds no nulls.

    A nested default is written out in full: the API server checks the CEL rules against it before it fills in the
    defaults of the fields inside.
    """
    if "default" not in node:
        return node
    node = dict(node)
    default = _without_nulls(node.pop("default"))
    return node if default is None else {**node, "default": default}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def without_defaults(node: Any) -> Any:
    """The schema with no default anywhere: a status holds what was observed, not what was not."""
    if isinstance(node, dict):
        return {key: without_defaults(item) for key, item in node.items() if key != "default"}
    return [without_defaults(item) for item in node] if isinstance(node, list) else node


def _refuse(node: Schema, path: str) -> None:
    forbidden = _FORBIDDEN & node.keys()
    if forbidden:
        raise ValueError(f"{path}: {sorted(forbidden)} cannot stand in a structural schema")
    untyped = {"x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"}
    if "type" not in node and not untyped & node.keys():
        raise ValueError(f"{path}: has no type")
    if node.get("type") == "number":
        raise ValueError(f"{path}: is a float; the API uses decimal strings")


def _children(node: Schema, definitions: Schema, path: str, seen: tuple[str, ...]) -> Schema:
    if "properties" in node:
        node["properties"] = {
            name: _structural(child, definitions, f"{path}.{name}", seen) for name, child in node["properties"].items()
        }
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(node.get(key), dict):
            node[key] = _structural(node[key], definitions, path + mark, seen)
    return node
