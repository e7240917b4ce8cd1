"""The CRD's schema, walked: every field of the spec with its path, and a manifest in which just that field is set."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wrong_manifests import valid_manifest

CRD = Path(__file__).parents[2] / "crds" / "finetunejobs.yaml"
ITEM, KEY, VALUE = "[]", "{key}", "{}"
# Each pattern of the API has to match one of these; a new one that does not is an error here.
_SAMPLES = (
    *(
        "text",
        "1e-9",
        "0.5",
        "1Gi",
        "5GB",
        "a/b",
        "{}",
        "hf://org/name",
        "hf://org/tuned",
        "http://tracker.example/api",
    ),
    *("nvidia.com/gpu",),
)
# What a field cannot be set without, where a rule and not the schema says so.
_COMPANIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("datasets.[].tags", "datasets.[]", {"format": "ShareGPT"}),
    ("evaluation.dataset.tags", "evaluation.dataset", {"format": "ShareGPT"}),
    ("training.schedulerOptions.minLearningRate", "training", {"scheduler": "Polynomial"}),
    ("training.schedulerOptions.minLearningRateRatio", "training", {"scheduler": "CosineWithMinLR"}),
    ("training.schedulerOptions.power", "training", {"scheduler": "Polynomial"}),
    *(
        (f"{where}.tolerations.[].{field}", f"{where}.tolerations.[]", companions)
        for where in ("resources", "serving")
        for field, companions in (
            ("value", {"key": "gpu"}),
            ("effect", {"key": "gpu"}),
            ("tolerationSeconds", {"key": "gpu", "effect": "NoExecute"}),
        )
    ),
)

Node = dict[str, Any]
Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the spec. Steps into lists and maps are ``[]``, ``{}`` and, for a map's keys, ``{key}``."""

    steps: tuple[str, ...]
    schema: Node

    @property
    def path(self) -> str:
        return ".".join(self.steps)

    @property
    def is_free_text(self) -> bool:
        """A string that no list of values bounds."""
        return self.schema.get("type", "string") == "string" and "enum" not in self.schema

    def manifest(self, value: Any, name: str = "attack") -> Manifest:
        """A small valid job with the field set to the value, and with all that the field requires."""
        built = valid_manifest(name)
        node, schema = built["spec"], spec_schema()
        for step in self.steps[:-1]:
            node, schema = _entered(node, schema, step)
        _put(node, self.steps[-1], value)
        for path, parent, companions in _COMPANIONS:
            if f"{self.path}.".startswith(f"{path}."):
                _at(built["spec"], parent).update(companions)
        return built


@functools.cache
def spec_schema() -> Node:
    versions = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    spec: Node = versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


def fields(schema: Node | None = None, steps: tuple[str, ...] = ()) -> Iterator[Field]:
    """Every node of the spec's schema below its root, keys of maps included."""
    schema = spec_schema() if schema is None else schema
    for name, child in schema.get("properties", {}).items():
        yield from _with_itself(child, (*steps, name))
    if isinstance(schema.get("items"), dict):
        yield from _with_itself(schema["items"], (*steps, ITEM))
    if isinstance(schema.get("additionalProperties"), dict):
        yield Field((*steps, KEY), {"type": "string"})
        yield from _with_itself(schema["additionalProperties"], (*steps, VALUE))


def text_fields() -> list[Field]:
    return [field for field in fields() if field.is_free_text and not _is_container(field.schema)]


def sample(schema: Node) -> Any:
    """A valid value, with required fields only."""
    kind = schema.get("type")
    if "enum" in schema:
        return schema["enum"][0]
    if kind == "object":
        return {name: sample(schema["properties"][name]) for name in schema.get("required", [])}
    if kind == "array":
        return [sample(schema["items"])]
    if kind in ("integer", "boolean"):
        return schema.get("default", schema.get("minimum", False))
    return _text(schema)


def _text(schema: Node) -> str:
    pattern = schema.get("pattern", "")
    found = next((text for text in _SAMPLES if re.search(pattern, text)), None)
    assert found is not None, f"no sample matches {pattern}: give one to _SAMPLES"
    return found


def _with_itself(schema: Node, steps: tuple[str, ...]) -> Iterator[Field]:
    yield Field(steps, schema)
    yield from fields(schema, steps)


def _is_container(schema: Node) -> bool:
    return schema.get("type") in ("object", "array")


def _entered(node: Any, schema: Node, step: str) -> tuple[Any, Node]:
    """The child of a node of the manifest, made where it is missing, and its schema."""
    if step == ITEM:
        if not node:
            node.append(sample(schema["items"]))
        return node[0], schema["items"]
    if step == VALUE:
        return node.setdefault("key", sample(schema["additionalProperties"])), schema["additionalProperties"]
    inner = schema["properties"][step]
    return node.setdefault(step, _empty(inner)), inner


def _empty(schema: Node) -> Any:
    return [] if schema["type"] == "array" else sample(schema)


def _put(node: Any, step: str, value: Any) -> None:
    if step == ITEM:
        node[:] = [value]
    elif step == KEY:
        node[value] = "text"
    else:
        node["key" if step == VALUE else step] = value


def _at(spec: Manifest, path: str) -> Manifest:
    node: Any = spec
    for step in path.split("."):
        node = node[0] if step == ITEM else node[step]
    found: Manifest = node
    return found
