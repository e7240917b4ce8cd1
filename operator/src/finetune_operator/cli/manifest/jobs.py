"""The checked contents of a stream of manifests."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from finetune_operator.api.base import KIND
from finetune_operator.api.job import FineTuneJob
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.manifest.documents import Document, read_documents
from finetune_operator.cli.manifest.problems import explain

CONFIG_MAP = "ConfigMap"
_KEY = re.compile(r"(?!\.\.?$)[-._a-zA-Z0-9]{1,253}")


@dataclass(frozen=True, slots=True)
class ManifestJob:
    """A valid FineTuneJob and the file that it stands in."""

    file: str
    job: FineTuneJob

    @property
    def name(self) -> str:
        return self.job.metadata.name

    def problem(self, field: str, words: str) -> str:
        """A line on one field of the job."""
        return f"{self.file}: {self.name}: {field}: {words}"


@dataclass(frozen=True, slots=True)
class Manifests:
    """Everything of use in a stream."""

    jobs: tuple[ManifestJob, ...]
    config_maps: Mapping[str, Mapping[str, bytes]]
    """Content of each key, by name of the ConfigMap."""
    ignored: tuple[str, ...]
    """Documents of other kinds, as Kind/name."""


def load_manifests(files: Sequence[str]) -> Manifests:
    """Read and check. Raises CommandError with a line for every problem of every job."""
    documents = read_documents(files)
    jobs = [document for document in documents if document.kind == KIND]
    config_maps = [document for document in documents if document.kind == CONFIG_MAP]
    others = [document for document in documents if document.kind not in (KIND, CONFIG_MAP)]
    problems: list[str] = []
    parsed = [job for document in jobs if (job := _job(document, problems))]
    contents = {document.name: _config_map(document, problems) for document in config_maps}
    problems += _twice(parsed)
    if not jobs:
        problems.append(_no_job(files, documents))
    if problems:
        raise CommandError("\n".join(problems))
    return Manifests(tuple(parsed), contents, tuple(f"{other.kind or 'document'}/{other.name}" for other in others))


def _job(document: Document, problems: list[str]) -> ManifestJob | None:
    try:
        # Strict JSON by alias is how the API server reads it: "3" is no number there, and learning_rate no field.
        text = json.dumps(document.content, default=str)
        job = FineTuneJob.model_validate_json(text, strict=True, by_alias=True, by_name=False)
        return ManifestJob(document.file, job)
    except ValidationError as error:
        lines = explain(error, FineTuneJob, document.content)
        problems += [f"{document.file}: {document.name}: {line}" for line in lines]
    except (ValueError, RecursionError) as error:
        problems.append(f"{document.file}: {document.name}: found YAML that is no tree ({error}), expected no cycles")
    return None


def _config_map(document: Document, problems: list[str]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for field in ("data", "binaryData"):
        for key, value in (document.content.get(field) or {}).items():
            try:
                contents[_key(key)] = value.encode() if field == "data" else base64.b64decode(value, validate=True)
            except (AttributeError, TypeError):
                problems.append(f"{document.file}: {document.name}: {field}.{key}: found {value!r}, expected text")
            except (ValueError, binascii.Error) as error:
                problems.append(f"{document.file}: {document.name}: {field}.{key}: {error}")
    return contents


def _key(key: object) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ValueError("expected a key of letters, digits, '-', '_' and '.'")
    return key


def _twice(jobs: Sequence[ManifestJob]) -> list[str]:
    counts = Counter(job.name for job in jobs)
    return [
        job.problem("metadata.name", f"found in {counts[job.name]} documents, expected one job of a name")
        for job in {job.name: job for job in jobs}.values()
        if counts[job.name] > 1
    ]


def _no_job(files: Sequence[str], documents: Sequence[Document]) -> str:
    kinds = ", ".join(sorted({document.kind or "documents without kind" for document in documents})) or "nothing"
    return f"{', '.join(files)}: found {kinds}, expected at least one document of kind {KIND}"
