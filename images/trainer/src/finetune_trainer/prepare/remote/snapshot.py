"""What a hub or object store holds at one moment, and what a client of one has to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from finetune_operator.api.base import SecretKeyReference
from finetune_operator.api.run import RunConfig
from finetune_operator.api.source import ParsedSource, parse_source

Wanted = Callable[[str], bool]
"""Whether a file is to be fetched, by its path inside the repository or bucket."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a snapshot, with every check sum that its host tells."""

    path: str
    """Inside the repository or bucket prefix."""
    size: int | None = None
    """Bytes; None where the host does not say."""
    sha256: str | None = None
    etag: str | None = None
    """Of an object store; the MD5 of the content for an object that was uploaded in one piece."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files that a source names, at one revision."""

    revision: str
    """What the branch or tag stood for: a commit, or a hash over the list of files where the host has no commits."""
    files: tuple[RemoteFile, ...]

    @property
    def bytes(self) -> int:
        """Size of all files together, as far as the host told."""
        return sum(file.size or 0 for file in self.files)

    def only(self, wanted: Wanted) -> Snapshot:
        """The same revision with fewer files."""
        return Snapshot(self.revision, tuple(file for file in self.files if wanted(file.path)))

    def to_json(self) -> dict[str, Any]:
        """For a file; absent check sums are left out."""
        files = [{key: value for key, value in asdict(file).items() if value is not None} for file in self.files]
        return {"revision": self.revision, "files": files}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Snapshot:
        """What ``to_json`` made. Raises KeyError or TypeError on anything else."""
        return cls(value["revision"], tuple(RemoteFile(**file) for file in value["files"]))


def content_revision(files: Sequence[RemoteFile]) -> str:
    """A name for a list of files: equal for equal content, as far as the host tells of it."""
    text = json.dumps([[file.path, file.size, file.sha256, file.etag] for file in files])
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class Source:
    """A model or dataset that a run downloads, and the field of the spec that names it."""

    run: RunConfig
    field: str
    """Such as ``spec.model``; ``.source`` and ``.tokenSecret`` are below it."""
    uri: str
    kind: str
    """"model" or "dataset"."""
    revision: str | None = None
    """Branch, tag or commit of a hub repository, as the user wrote it."""
    token_secret: SecretKeyReference | None = None

    @property
    def parsed(self) -> ParsedSource:
        """The URI taken apart."""
        return parse_source(self.uri)


class Remote(Protocol):
    """A client of one repository or bucket. Both methods raise StageFailure, in the words of ``refusals``."""

    def snapshot(self, wanted: Wanted) -> Snapshot:
        """The wanted files at the revision that the source names now."""

    def fetch(self, file: RemoteFile, snapshot: Snapshot, into: Path) -> Path:
        """Download a file to ``into / file.path``, going on with what an earlier attempt left there."""
