"""What a run's sources stood for when it first looked: a branch that moves later does not change a run that has begun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune_operator.api.result import write_whole
from finetune_trainer.prepare.remote.snapshot import Remote, Snapshot, Source, Wanted

PINS = ".sources.json"
"""File in the job's folder: {"kind URI@revision": snapshot}."""


def pinned(source: Source, remote: Remote, wanted: Wanted) -> Snapshot:
    """The source's snapshot as this run first saw it. Raises StageFailure where it was never seen and the host refuses."""
    path, key = source.run.paths.root / PINS, f"{source.kind} {source.uri}@{source.revision or ''}"
    pins = _read(path)
    try:
        return Snapshot.from_json(pins[key])
    except (KeyError, TypeError):
        snapshot = remote.snapshot(wanted)
    write_whole(path, json.dumps({**pins, key: snapshot.to_json()}, indent=1).encode())
    return snapshot


def _read(path: Path) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return parsed
