"""The generated CRD is current, documented throughout, and anything it could not express would have been an error."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api import crd
from finetune_operator.api.base import ApiModel
from finetune_operator.api.manifest_yaml import load_all
from finetune_operator.api.reference import reference
from finetune_operator.api.structural import structural_schema

ROOT = Path(__file__).parents[2]


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def version() -> dict[str, Any]:
    first: dict[str, Any] = crd.custom_resource_definition()["spec"]["versions"][0]
    return first


@pytest.mark.parametrize("copy", ["crds/finetunejobs.yaml", "charts/finetune-operator/files/crds/finetunejobs.yaml"])
def test_the_committed_crd_is_what_the_models_generate(copy: str) -> None:
    assert load_all((ROOT / copy).read_text()) == [crd.custom_resource_definition()], "run `make crds`"


def test_the_committed_reference_is_what_the_models_generate() -> None:
    assert (ROOT / "docs/api.md").read_text() == reference(), "run `make crds`"


def test_every_field_has_a_description() -> None:
    properties = version()["schema"]["openAPIV3Schema"]["properties"]
    undocumented = [
        path
        for part in ("spec", "status")
        for path, node in nodes(properties[part], part)
        if not path.endswith("[]") and not node.get("description")
    ]
    assert undocumented == []


def test_every_list_map_and_string_of_the_spec_is_bounded() -> None:
    unbounded = [
        path
        for path, node in nodes(version()["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec")
        if (node.get("type") == "array" and "maxItems" not in node)
        or (node.get("type") == "string" and "maxLength" not in node and "enum" not in node)
        or ("additionalProperties" in node and "maxProperties" not in node)
    ]
    assert unbounded == []


def test_the_crd_stays_small_enough_for_client_side_apply() -> None:
    assert len((ROOT / "crds/finetunejobs.yaml").read_bytes()) < 262_144


def test_the_status_holds_no_default_but_that_nobody_has_seen_the_job() -> None:
    status = version()["schema"]["openAPIV3Schema"]["properties"]["status"]
    defaults = {path: node["default"] for path, node in nodes(status, "status") if "default" in node}
    assert defaults == {"status": {"observedGeneration": -1}}


class _WithSet(ApiModel):
    names: set[str]


class _WithFloat(ApiModel):
    rate: float


class _WithUnion(ApiModel):
    value: int | str


class _Recursive(ApiModel):
    children: list["_Recursive"] = []


@pytest.mark.parametrize(
    ("model", "path"),
    [(_WithSet, "names"), (_WithFloat, "rate"), (_WithUnion, "value"), (_Recursive, "children")],
)
def test_what_a_structural_schema_cannot_hold_is_refused_with_its_path(model: type[ApiModel], path: str) -> None:
    with pytest.raises(ValueError, match=path):
        structural_schema(model)
