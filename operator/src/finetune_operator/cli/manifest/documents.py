"""YAML files, or standard input, as a list of documents."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune_operator.cli.errors import CommandError

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file."""

    file: str
    number: int
    """Position in the file, from 1."""
    content: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.content.get("kind", ""))

    @property
    def name(self) -> str:
        """metadata.name, or the position in the file where there is none."""
        metadata = self.content.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return name if isinstance(name, str) and name else f"document {self.number}"


class ManifestLoader(yaml.SafeLoader):
    """Reads YAML as kubectl does: 1e-4 is a number, a date is text, and a key may stand only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem=f"the key {key.value} stands twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """The scalar as it is written."""
        return str(node.value)


ManifestLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
ManifestLoader.add_constructor("tag:yaml.org,2002:timestamp", ManifestLoader.construct_text)


def read_documents(files: Sequence[str]) -> list[Document]:
    """All documents of all files in order; the items of a List count as documents. Raises CommandError naming every bad file."""
    documents: list[Document] = []
    problems: list[str] = []
    for file in files:
        try:
            documents.extend(_parse(file, _text(file)))
        except CommandError as error:
            problems.append(error.message)
    if problems:
        raise CommandError("\n".join(problems))
    return documents


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == STANDARD_INPUT else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CommandError(f"{file}: not UTF-8 text at byte {error.start}") from None


def _parse(file: str, text: str) -> Iterator[Document]:
    number = 0
    try:
        for content in yaml.load_all(text, Loader=ManifestLoader):
            for item in _items(content):
                number += 1
                yield _document(file, number, item)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"{file}:{mark.line + 1}" if mark else file
        raise CommandError(f"{line}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise CommandError(f"{file}: not YAML: {' '.join(str(error).split())}") from None


def _items(content: Any) -> Iterator[Any]:
    if isinstance(content, dict) and content.get("kind") == "List":
        yield from content.get("items") or []
    elif content is not None:
        yield content


def _document(file: str, number: int, content: Any) -> Document:
    if not isinstance(content, dict):
        raise CommandError(
            f"{file}: document {number}: found {type(content).__name__} {str(content)[:40]!r}, expected a mapping with "
            "apiVersion, kind, metadata and spec"
        )
    return Document(file, number, content)
