"""One job of the corpora of bad and of odd ones: its rows, its model, its manifest, and what has to be said of it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_operator.api.manifest_yaml import dump_all
from finetune_operator.api.run import RunConfig
from finetune_operator.cli.commands.run import checked_configs
from finetune_operator.cli.local.inputs import Inputs
from finetune_operator.cli.manifest.jobs import load_manifests
from trainer_runs import chat
from wrong_manifests import changed

Content = bytes | str | list[Any]
"""Of a file: as it is, or rows for JSON Lines."""
GOOD = [chat(f"question {number}", f"answer {number}") for number in range(4)]

QUICK: Mapping[str, Any] = {
    "maxSteps": 1,
    "perDeviceBatchSize": 2,
    "gradientAccumulationSteps": 1,
    "learningRate": "1e-3",
    "precision": "FP32",
}
BASICS: Mapping[str, Any] = {
    "method": "LoRA",
    "lora": {"rank": 2},
    "tokenization": {"cutoffLen": 128, "packing": "None"},
    "training": dict(QUICK),
    "resources": {"gpusPerNode": 0},
}


@dataclass(frozen=True, slots=True)
class JobCase:
    """``spec`` sets fields by dotted path; a text that begins with ``data/`` becomes the file's source."""

    case: str
    rows: Content = field(default_factory=lambda: list(GOOD))
    file: str = "rows.jsonl"
    spec: Mapping[str, Any] = field(default_factory=dict)
    model: Callable[[Path], object] | None = None
    """Changes a copy of the base model."""
    files: Mapping[str, Content] = field(default_factory=dict)
    """Further files."""
    says: tuple[str, ...] = ()
    """What a refusal has to say: where, what was found, what was expected, what to do."""


def write_case(case: JobCase, base: Path, folder: Path) -> Path:
    """The manifest of the job, with its data and model beside it."""
    data = folder / "data"
    for name, content in {case.file: case.rows, **case.files}.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_bytes(content))
    model = base
    if case.model is not None:
        model = shutil.copytree(base, folder / "model")
        case.model(model)
    spec: dict[str, Any] = {
        "model": {"source": f"file://{model}"},
        "datasets": [{"source": f"file://{data / case.file}"}],
        **copy.deepcopy(dict(BASICS)),
    }
    manifest: dict[str, Any] = {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "job"},
        "spec": spec,
    }
    for path, value in case.spec.items():
        manifest = changed(manifest, f"spec.{path}", value)
    path = folder / "job.yaml"
    path.write_text(dump_all([_placed(manifest, folder)]))
    return path


def _placed(value: Any, folder: Path) -> Any:
    if isinstance(value, str) and value.startswith(("data/", "model/")):
        return f"file://{folder / value}"
    if isinstance(value, list):
        return [_placed(item, folder) for item in value]
    if isinstance(value, dict):
        return {key: _placed(item, folder) for key, item in value.items() if item is not None}
    return value


def as_bytes(content: Content) -> bytes:
    """The file's content."""
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode()
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in content).encode()


def checked(manifest: Path) -> RunConfig:
    """The job as ``finetune run`` checks and hands it on. Raises CommandError where it refuses the manifest."""
    inputs = Inputs(claims={}, config_maps={}, secrets={}, config_map_documents={})
    [config] = checked_configs(load_manifests([str(manifest)]).jobs, inputs, manifest.parent / "work")
    return config
