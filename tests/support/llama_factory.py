"""LLaMA-Factory files made for a test, and what converting them gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_operator.cli.convert.convert import Converted, convert
from finetune_operator.cli.convert.options import Options


class _Lacking:
    """With a name of its own, so that a test's id is the same in every process."""

    def __repr__(self) -> str:
        return "lacking"


LACKING = _Lacking()
"""A key that the file is to lack."""
ROWS = '[{"instruction": "Hi", "input": "", "output": "Hello"}]'
TRAINING: Mapping[str, Any] = {
    "model_name_or_path": "Qwen/Qwen2-7B-Instruct",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "dataset": "rows",
    "output_dir": "saves/one",
}
DELIVERY: Mapping[str, Any] = {
    "model_name_or_path": "Qwen/Qwen2-7B-Instruct",
    "adapter_name_or_path": "saves/one",
    "finetuning_type": "lora",
}


def write_datasets(folder: Path, **entries: Mapping[str, Any]) -> None:
    """dataset_info.json with the dataset ``rows``, and further entries."""
    (folder / "rows.json").write_text(ROWS)
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}, **entries}))


def write_yaml(folder: Path, name: str, keys: Mapping[str, Any]) -> str:
    """A file with a key a line, in order; JSON's values are YAML's."""
    path = folder / name
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in keys.items() if value is not LACKING]
    path.write_text("".join(lines))
    return str(path)


def training_file(folder: Path, name: str = "sft.yaml", **keys: Any) -> str:
    """The smallest file that trains, with keys changed or added."""
    if not (folder / "dataset_info.json").exists():
        write_datasets(folder)
    return write_yaml(folder, name, {**TRAINING, **keys})


def delivery_file(folder: Path, name: str, **keys: Any) -> str:
    """The smallest chat file; an export with ``export_dir``."""
    return write_yaml(folder, name, {**DELIVERY, **keys})


def converted(folder: Path, options: Options | None = None, **keys: Any) -> Converted:
    """What comes of one training file."""
    return convert([training_file(folder, **keys)], options or Options())


def spec_of(result: Converted) -> dict[str, Any]:
    """The spec of the only job. Fails with the problems where there are any."""
    assert result.problems == []
    (manifest,) = result.manifests
    spec: dict[str, Any] = manifest["spec"]
    return spec


def field(spec: Any, path: str) -> Any:
    """The value at a dotted path, a number stepping into a list; None where there is none."""
    for part in path.split("."):
        try:
            spec = spec[int(part)] if isinstance(spec, list) else spec[part]
        except (KeyError, IndexError):
            return None
    return spec
