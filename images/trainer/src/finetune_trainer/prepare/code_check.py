"""What the files of a model or adapter may not say: names of code to run, and of files that lie elsewhere.

transformers and peft run or read such things by themselves, some of them with ``trust_remote_code=False``
(CVE-2026-4372, CVE-2026-5241). Therefore they are refused before either library sees the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NEVER = "which is never run; use a model that transformers knows"
_PLAIN_NAME = re.compile(r"[a-z0-9_|]+")
"""Of an implementation that is part of transformers, such as sdpa or paged|eager; others are kernels of a hub."""
_OWN_LIBRARIES = ("transformers.", "peft.")


def code_problems(folder: Path) -> Iterator[str]:
    """Everything in the JSON files of a model's folder that would run code or lead out of the folder."""
    for path in sorted(folder.glob("*config.json")):
        for key, value in settings_of(_read(path)):
            yield from _problems(path, key, value)
    if (folder / "config.json").is_file() and (folder / "adapter_config.json").is_file():
        yield (
            "adapter_config.json stands beside config.json: transformers would load that adapter into the model unasked; remove "
            "it, or name the adapter in spec.adapter"
        )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # said by whoever reads the file


def settings_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    # YAML can hold one value in many places: each is looked at once.
    pending, seen = [value], set[int]()
    while pending:
        found = pending.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, dict):
            yield from found.items()
            pending += found.values()
        elif isinstance(found, list):
            pending += found


def _problems(path: Path, key: str, value: Any) -> Iterator[str]:
    if not value:
        return
    if key == "auto_map":
        yield f"{path.name} has auto_map: the model brings Python code, {_NEVER}"
    elif key == "trust_remote_code" or key.startswith("custom_"):
        yield f"{path.name} has {key} {value!r}, which asks for code of a repository, {_NEVER}"
    elif "implementation" in key:
        yield from _implementation_problems(path, key, value)
    elif key == "transformers_weights":
        yield (
            f"{path.name} has transformers_weights {value!r}, other weights than model.safetensors; remove it from {path.name}"
        )
    elif key == "megatron_config":
        yield f"{path.name} has megatron_config, for which peft imports a module by name, {_NEVER}"
    elif key == "parent_library" and not str(value).startswith(_OWN_LIBRARIES):
        yield f"{path.name} has {key} {value!r}, a module that is not part of transformers, {_NEVER}"
    elif key.endswith(("_file", "_files")):
        yield from _file_problems(path, key, value)


def _implementation_problems(path: Path, key: str, value: Any) -> Iterator[str]:
    # CVE-2026-4372: such a value names a kernel of the hub, which is code that would be fetched and run.
    for name in texts_of(value):
        if not _PLAIN_NAME.fullmatch(name):
            yield f"{path.name} has {key} {name!r}, code of a repository, which is never run; remove it from {path.name}"


def _file_problems(path: Path, key: str, value: Any) -> Iterator[str]:
    # Stale paths of the machine that the model was made on are common, and harmless where nothing lies there.
    for name in texts_of(value):
        if "/" in name and "\0" not in name and (path.parent / name).exists():
            yield f"{path.name} has {key} {name!r}, a file elsewhere, expected one beside it; remove it from {path.name}"


def texts_of(value: Any) -> Iterator[str]:
    """Every text that is no key, at any depth."""
    if isinstance(value, str):
        yield value
        return
    for _, found in settings_of({"": value}):
        yield from (item for item in (found if isinstance(found, list) else [found]) if isinstance(item, str))
