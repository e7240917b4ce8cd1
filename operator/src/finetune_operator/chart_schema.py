"""The chart's generated files: `python -m finetune_operator.chart_schema [CHART_FOLDER]` writes them.

values.yaml, values.schema.json and the table in README.md come from `chart_values`, files/rights.yaml from `shell.rights`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from finetune_operator.api.result import write_whole
from finetune_operator.chart_values import Values
from finetune_operator.shell.rights import CLUSTER_RULES, NAMESPACED_RULES

COMMAND = "make manifests"
TABLE_BEGIN, TABLE_END = "<!-- values: begin, generated -->", "<!-- values: end -->"

# Keys that Helm itself puts into the values of a subchart; the chart does not read them.
_SUBCHART = {
    "global": {"type": "object", "description": "Values that a parent chart shares with its subcharts; not read."},
    "enabled": {"type": "boolean", "description": "For a parent chart's dependency condition; not read."},
}


def values_schema() -> str:
    """The JSON schema that Helm checks values against."""
    schema = Values.model_json_schema(by_alias=True)
    schema["properties"] = {**schema["properties"], **_SUBCHART}
    # Draft 7 is what every Helm 3 and 4 reads; nothing newer is used but the name `$defs`, which is only pointed to.
    return json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", **schema}, indent=2) + "\n"


def values_file() -> str:
    """values.yaml: every value with its default, described by a comment."""
    lines = [f"# Generated from operator/src/finetune_operator/chart_values.py by `{COMMAND}`. Do not edit."]
    for indent, description, entry in _entries(Values(), 0):
        if indent == 0:
            lines.append("")
        lines += [f"{' ' * indent}# {description}", f"{' ' * indent}{entry}"]
    return "\n".join(lines) + "\n"


def _entries(model: BaseModel, indent: int) -> Iterator[tuple[int, str, str]]:
    """(indent, description, `key:` or `key: value`) of each field and of the fields below it."""
    for name, field in type(model).model_fields.items():
        value, description = getattr(model, name), field.description or ""
        if isinstance(value, BaseModel):
            yield indent, description, f"{field.alias}:"
            yield from _entries(value, indent + 2)
        else:
            yield indent, description, f"{field.alias}: {_inline(value)}"


def _inline(value: Any) -> str:
    """A default in YAML's flow form, on one line."""
    return json.dumps(value, ensure_ascii=False)


def values_table() -> str:
    """The rows of README.md: path, default, description."""
    rows = ["| value | default | what it is |", "|---|---|---|"]
    rows += [f"| `{path}` | `{default}` | {description} |" for path, default, description in _rows(Values(), "")]
    return "\n".join(rows)


def _rows(model: BaseModel, prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in type(model).model_fields.items():
        value, path = getattr(model, name), f"{prefix}{field.alias}"
        if isinstance(value, BaseModel):
            yield from _rows(value, f"{path}.")
        else:
            yield path, _inline(value), (field.description or "").replace("|", "\\|")


def with_table(readme: str) -> str:
    """The README with its table renewed. Raises ValueError where a marker is missing."""
    before, begin, rest = readme.partition(TABLE_BEGIN)
    _, end, after = rest.partition(TABLE_END)
    if not begin or not end:
        raise ValueError(f"README.md: expected the lines {TABLE_BEGIN!r} and {TABLE_END!r}; add them around the table")
    return f"{before}{begin}\n{values_table()}\n{end}{after}"


def rights_file() -> str:
    """files/rights.yaml: the rules that the templates put into roles."""
    header = f"# Generated from operator/src/finetune_operator/shell/rights.py by `{COMMAND}`. Do not edit.\n"
    rules = {"namespaced": [dict(rule) for rule in NAMESPACED_RULES], "cluster": [dict(rule) for rule in CLUSTER_RULES]}
    return header + yaml.safe_dump(rules, sort_keys=False)


def generated(chart: Path) -> dict[Path, str]:
    """Every generated file of the chart with its text, except the CRD."""
    readme = chart / "README.md"
    return {
        chart / "values.schema.json": values_schema(),
        chart / "values.yaml": values_file(),
        readme: with_table(readme.read_text()),
        chart / "files" / "rights.yaml": rights_file(),
    }


def main() -> None:
    """Write the generated files of the chart in the folder named on the command line."""
    chart = Path(sys.argv[1] if len(sys.argv) > 1 else "charts/finetune-operator")
    for path, text in generated(chart).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())


if __name__ == "__main__":
    main()
