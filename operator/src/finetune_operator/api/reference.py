"""The API reference, generated from the CRD: `python -m finetune_operator.api.reference FILE` writes it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from finetune_operator.api import conditions
from finetune_operator.api.crd import custom_resource_definition
from finetune_operator.api.structural import Schema

INTRODUCTION = """# API reference

`finetune-operator.io/v1alpha1`, kind `FineTuneJob`, short name `ftj`. Generated from the pydantic models by `make crds`; do not edit.

Rates are decimal strings, because Kubernetes APIs hold no floats: write `learningRate: "1e-4"` with the quotes. Fields that training
depends on cannot be changed once the job is created; `suspend`, `serving`, `activeDeadlineSeconds` and `ttlSecondsAfterFinished` can.
"""


def reference() -> str:
    """The whole reference as Markdown."""
    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    parts = [INTRODUCTION]
    for name in ("spec", "status"):
        parts += [
            f"\n## {name}\n\n{schema['properties'][name]['description']}\n",
            *_section(schema["properties"][name], name),
        ]
    return "".join([*parts, *_reasons()])


def _section(node: Schema, path: str) -> Iterator[str]:
    yield "\n| field | type | default | meaning |\n|---|---|---|---|\n"
    yield from _rows(node, path)
    rules = [rule["message"] for rule in node.get("x-kubernetes-validations", []) if "oldSelf" not in rule["rule"]]
    if rules:
        yield "\nRules: " + "; ".join(rules) + ".\n"


def _rows(node: Schema, path: str) -> Iterator[str]:
    required = node.get("required", [])
    for name, child in node.get("properties", {}).items():
        default = f"`{child['default']}`" if _is_plain(child.get("default")) else "required" if name in required else ""
        yield f"| `{path}.{name}` | {_type(child)} | {default} | {_cell(child.get('description', ''))} |\n"
        inner = child.get("items", child)
        if "properties" in inner:
            yield from _rows(inner, f"{path}.{name}" + ("[]" if "items" in child else ""))


def _is_plain(default: object) -> bool:
    return default is not None and not isinstance(default, dict)


def _type(node: Schema) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "integer or decimal string"
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"])
    if node.get("type") == "array":
        return f"list of {_type(node['items'])}"
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}"
    return f"{node.get('type', 'any')}{_bounds(node)}"


def _bounds(node: Schema) -> str:
    if node.get("type") != "integer" or "minimum" not in node:
        return ""
    return f" {node['minimum']}…{node['maximum']}" if "maximum" in node else f" ≥ {node['minimum']}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _reasons() -> Iterator[str]:
    """The reasons with the comments that stand beside them in conditions.py."""
    yield "\n## Condition types and reasons\n"
    for line in Path(conditions.__file__).read_text().splitlines():
        if heading := re.match(r"# --- (.*)", line):
            yield f"\n{heading[1][0].upper()}{heading[1][1:]}.\n\n| value | when |\n|---|---|\n"
        elif entry := re.match(r'[A-Z_]+ = "(\w+)"  # (.*)', line):
            yield f"| `{entry[1]}` | {_cell(entry[2])} |\n"


def main() -> None:
    """Write the reference to the file named on the command line."""
    Path(sys.argv[1]).write_text(reference())


if __name__ == "__main__":
    main()
