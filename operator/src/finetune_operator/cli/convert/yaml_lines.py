"""A LLaMA-Factory YAML file as its values and the lines that they stand on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.manifest.documents import STANDARD_INPUT, ManifestLoader


@dataclass(frozen=True, slots=True)
class Config:
    """One file: a flat mapping of keys to values."""

    file: str
    values: Mapping[str, Any]
    lines: Mapping[str, int]
    """Line of each key, from 1."""

    @property
    def folder(self) -> Path:
        """Folder that the file lies in."""
        return Path() if self.file == STANDARD_INPUT else Path(self.file).parent


def read_config(file: str) -> Config:
    """Read one file as LLaMA-Factory (OmegaConf) reads it: 1e-4 is a number, a key stands once. Raises CommandError."""
    # ManifestLoader has just these rules.
    loader = ManifestLoader(_text(file))
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            found = "nothing" if node is None else "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
            raise CommandError(f"{file}: found {found}, expected keys and values, one a line")
        lines = {str(key.value): key.start_mark.line + 1 for key, _ in node.value}
        values: dict[Any, Any] = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise CommandError(
            f"{file}:{mark.line + 1 if mark else 1}: not YAML: {error.problem or error.context}"
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CommandError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    finally:
        loader.dispose()
    return Config(file, {str(key): value for key, value in values.items()}, lines)


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == STANDARD_INPUT else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}; name a LLaMA-Factory YAML file") from None
    except UnicodeDecodeError as error:
        raise CommandError(f"{file}: not UTF-8 text at byte {error.start}; save it as UTF-8") from None
