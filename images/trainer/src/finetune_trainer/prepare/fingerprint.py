"""Identity of everything that prepare reads: equal means that its result still stands."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from finetune_operator.api.model import Adapter, Model
from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare import base_model, sources
from finetune_trainer.prepare.problems import Problems
from finetune_trainer.prepare.sources import NamedDataset, local_files, local_path
from finetune_trainer.store import STORE_VERSION

_FIELDS = ("model", "adapter", "datasets", "tokenization", "evaluation", "lora", "method")


def fingerprint(run: RunConfig, datasets: list[NamedDataset]) -> str:
    """sha256 over the fields that matter, size and time of every mounted file, and the revision of all that is downloaded.

    Raises StageFailure with every source that has no file or whose host does not tell its revision.
    """
    problems = Problems()
    files, revisions = _files(run, datasets, problems), _revisions(run, datasets, problems)
    problems.refuse(None)
    spec = run.spec.to_manifest()
    parts = {
        "version": STORE_VERSION,
        "spec": {name: spec.get(name) for name in _FIELDS},
        "seed": run.spec.training.seed,
        "files": sorted(files),
        "revisions": revisions,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _files(run: RunConfig, datasets: list[NamedDataset], problems: Problems) -> list[tuple[str, int, int]]:
    paths: list[Path] = []
    for field, named in _weights(run).items():
        with problems.gathered():
            folder = local_path(run, named.source, field)
            if folder is not None and folder.is_dir():
                paths += [path for path in folder.iterdir() if path.is_file()]
    for dataset in datasets:
        with problems.gathered():
            paths += local_files(run, dataset)
    facts = [(str(path), path.stat()) for path in paths]
    return [(path, fact.st_size, fact.st_mtime_ns) for path, fact in facts]


def _revisions(run: RunConfig, datasets: list[NamedDataset], problems: Problems) -> list[str | None]:
    found: list[str | None] = []
    for field, named in _weights(run).items():
        with problems.gathered():
            found.append(base_model.remote_revision(run, field, named))
    for dataset in datasets:
        with problems.gathered():
            found.append(sources.remote_revision(run, dataset))
    return found


def _weights(run: RunConfig) -> dict[str, Model | Adapter]:
    named: dict[str, Model | Adapter] = {"spec.model": run.spec.model}
    return named if run.spec.adapter is None else {**named, "spec.adapter": run.spec.adapter}
