"""YAML as Kubernetes reads it. PyYAML follows YAML 1.1, where 1e-4 is a string; kubectl and the API server read a number."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

# Number forms of the YAML 1.2 core schema that YAML 1.1 takes for strings.
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$")


class _Loader(yaml.SafeLoader):
    """Safe loader that reads numbers as kubectl does."""


class _Dumper(yaml.SafeDumper):
    """Safe dumper that quotes every string that kubectl would read as a number."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _as_block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _as_block)


def load_all(text: str) -> list[Any]:
    """Every non-empty document of a YAML stream. Raises yaml.YAMLError with line and column."""
    return [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]


def dump_all(documents: Iterable[Any]) -> str:
    """A YAML stream that kubectl reads back as the same values; key order is kept."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
