"""Which files a dataset's card may name: those of its own repository.

The datasets library takes any path and any URL there, so that a card could have the files of the pod read as rows, its
mounted Secrets among them, or have addresses asked that only the cluster reaches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from finetune_trainer.prepare.code_check import settings_of, texts_of

_FENCE = "---"
_NAMING_FILES = ("data_files", "data_dir", "path")


def foreign_files(card: bytes) -> Iterator[str]:
    """Names that lead out of the repository."""
    for key, value in settings_of(_header(card)):
        if key in _NAMING_FILES:
            yield from (name for name in texts_of(value) if leads_out(name))


def leads_out(name: str) -> bool:
    """Whether a name is a URL, a chain of them, an absolute path, or goes up."""
    return "://" in name or "::" in name or name.startswith(("/", "~")) or ".." in name.split("/")


def _header(card: bytes) -> Any:
    _, _, rest = card.decode(errors="replace").partition(_FENCE)
    try:
        return yaml.safe_load(rest.partition(f"\n{_FENCE}")[0])
    except (yaml.YAMLError, RecursionError, ValueError):
        return None  # the library says what is wrong with it
