"""Many files at once: training files become jobs, export and chat files change them, and everything wrong is told together."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from finetune_operator.api.base import API_VERSION, KIND
from finetune_operator.api.job import FineTuneJob
from finetune_operator.cli.convert.deliver import Trained, deliver
from finetune_operator.cli.convert.findings import in_order
from finetune_operator.cli.convert.follow import follow
from finetune_operator.cli.convert.keys import MAPPED, TRAIN
from finetune_operator.cli.convert.names import job_name
from finetune_operator.cli.convert.options import Options
from finetune_operator.cli.convert.settings import Settings, read_settings
from finetune_operator.cli.convert.train import train_spec
from finetune_operator.cli.convert.yaml_lines import read_config
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.manifest.problems import explain

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Converted:
    """What came of the files. Where there are problems, the manifests are of no use."""

    manifests: list[Manifest]
    problems: list[str]
    notes: list[str]


def convert(files: Sequence[str], options: Options) -> Converted:
    """Convert all files, in their order. Raises nothing: what is wrong is in the problems."""
    unreadable: dict[str, str] = {}
    settings: list[Settings] = []
    for file in files:
        try:
            settings.append(read_settings(read_config(file)))
        except CommandError as error:
            unreadable[file] = error.message
    trained = [Trained(file, train_spec(file, options)) for file in settings if file.purpose == TRAIN]
    follow(trained)
    deliver([file for file in settings if file.purpose != TRAIN], trained, options)
    manifests = [_manifest(job) for job in trained]
    for job, manifest in zip(trained, manifests, strict=True):
        _validate(job.settings, manifest)
    problems = [line for file in settings for line in in_order(file.findings.problems)]
    notes = [line for file in settings for line in in_order(file.findings.notes)]
    return Converted(manifests, [*unreadable.values(), *problems, *_same_names(trained)], notes)


def _manifest(job: Trained) -> Manifest:
    name = job_name(job.settings.config.file)
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": job.spec}


def _validate(settings: Settings, manifest: Manifest) -> None:
    """Report what only the API refuses, such as a number out of bounds, at the key that it came from."""
    if settings.findings.problems:
        return
    try:
        FineTuneJob.model_validate_json(json.dumps(manifest), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        lines = [line.split(": ", 1) for line in explain(error, FineTuneJob, manifest)]
        found = [(_key_of(path, settings), path, words) for path, words in lines]
        # A field that no key was given for, such as alpha, is wrong because another one is.
        for key, path, words in [entry for entry in found if entry[0]] or found:
            settings.findings.problem(key or path, f"{words}; correct it")


def _key_of(path: str, settings: Settings) -> str | None:
    """The key of the file that the field was made from."""
    plain = re.sub(r"\[\d+\]", "[]", path)
    keys = [
        key
        for key, mapped in MAPPED.items()
        if settings.is_set(key) and f"{plain}[".startswith((f"{mapped.field}[", f"{mapped.field}."))
    ]
    return max(keys, key=lambda key: len(MAPPED[key].field), default=None)


def _same_names(trained: Sequence[Trained]) -> list[str]:
    by_name: dict[str, list[str]] = {}
    for job in trained:
        by_name.setdefault(job_name(job.settings.config.file), []).append(job.settings.config.file)
    return [
        f"{', '.join(files)}: found {len(files)} files that make the job {name}, expected one of a name; rename them"
        for name, files in by_name.items()
        if len(files) > 1
    ]
