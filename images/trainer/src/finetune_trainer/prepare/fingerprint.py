"""Identity of everything that prepare reads: equal means that its result still stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare.sources import NamedDataset, local_files, local_path
from finetune_trainer.store import STORE_VERSION

_FIELDS = ("model", "datasets", "tokenization", "evaluation", "lora", "method")


def fingerprint(run: RunConfig, datasets: list[NamedDataset]) -> str:
    """sha256 over the fields that matter and size and time of every file on a mounted volume.

    Raises StageFailure where a dataset has no file.
    """
    spec = run.spec.to_manifest()
    parts = {
        "version": STORE_VERSION,
        "spec": {name: spec.get(name) for name in _FIELDS},
        "seed": run.spec.training.seed,
        "files": sorted(_files(run, datasets)),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _files(run: RunConfig, datasets: list[NamedDataset]) -> Iterator[tuple[str, int, int]]:
    paths = [path for named in datasets for path in local_files(run, named)]
    model = local_path(run, run.spec.model.source, "spec.model")
    if model is not None and model.is_dir():
        paths += [path for path in model.iterdir() if path.is_file()]
    for path in paths:
        facts = path.stat()
        yield str(path), facts.st_size, facts.st_mtime_ns
