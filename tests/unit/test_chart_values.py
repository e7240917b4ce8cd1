"""Every value of the chart is exercised: some file under ci/ sets it, the manifests differ by it, and a wrong one is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart import CHART, VALUES_FILES, refusal, rendered_text

ValuePath = tuple[str, ...]
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
# Helm's own keys for subcharts, which no template reads.
NOT_OURS = {("global",), ("enabled",)}


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def leaves(node: dict[str, Any], path: ValuePath = ()) -> Iterator[ValuePath]:
    properties = resolved(node).get("properties")
    if not properties:
        yield path
    for key, child in (properties or {}).items():
        yield from leaves(child, (*path, key))


VALUES = sorted(set(leaves(SCHEMA)) - NOT_OURS)


def at(values: Any, path: ValuePath) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


@cache
def contents(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text()) or {}


@cache
def render_of(file: Path) -> str:
    return rendered_text("--values", file)


def setting_file(path: ValuePath) -> Path | None:
    found = [file for file in VALUES_FILES if at(contents(file), path) not in (None, at(DEFAULTS, path))]
    return found[0] if found else None


def test_the_schema_is_walked_to_its_leaves() -> None:
    assert {("image", "tag"), ("settings", "stages", "train", "memory"), ("networkPolicy", "dns")} <= set(VALUES)


@pytest.mark.parametrize("path", VALUES, ids=".".join)
def test_a_file_under_ci_sets_the_value_to_something_else_than_its_default(path: ValuePath) -> None:
    assert setting_file(path), f"set {'.'.join(path)} in charts/finetune-operator/ci/everything-values.yaml"


# The settings go into the ConfigMap as a whole; test_chart_render reads them back.
@pytest.mark.parametrize("path", [path for path in VALUES if path[0] != "settings"], ids=".".join)
def test_the_manifests_differ_by_the_value(path: ValuePath, tmp_path: Path) -> None:
    file = setting_file(path)
    assert file
    without = copy.deepcopy(contents(file))
    # null would have Helm remove the default, too
    holder = at(without, path[:-1])
    del holder[path[-1]]
    changed = tmp_path / "values.yaml"
    changed.write_text(yaml.safe_dump(without))
    assert rendered_text("--values", changed) != render_of(file)


def node_at(path: ValuePath) -> dict[str, Any]:
    node = SCHEMA
    for key in path:
        node = resolved(node)["properties"][key]
    return resolved(node)


def of_no_type_that_fits(path: ValuePath) -> Any:
    node = node_at(path)
    types = {resolved(choice).get("type") for choice in node.get("anyOf", [node])}
    return "a text" if "object" in types else {"an": "object"}


@pytest.fixture(scope="module")
def all_wrong(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Helm's words on a file in which every value is of a wrong type: it names all of them at once."""
    values: dict[str, Any] = {}
    for path in VALUES:
        holder = values
        for key in path[:-1]:
            holder = holder.setdefault(key, {})
        holder[path[-1]] = of_no_type_that_fits(path)
    file = tmp_path_factory.mktemp("wrong") / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    return refusal("--values", file)


@pytest.mark.parametrize("path", VALUES, ids=".".join)
def test_a_value_of_a_wrong_type_is_refused_by_its_name(path: ValuePath, all_wrong: str) -> None:
    assert f"/{'/'.join(path)}'" in all_wrong
