"""Puts the base model where every stage finds it: a link to a mounted volume, or files of the job's own."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from finetune_operator.api.model import Adapter, Model
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.result import sync_folder, write_whole
from finetune_operator.api.run import RunConfig
from finetune_trainer.folders import remove, sync_tree
from finetune_trainer.prepare.remote import downloads
from finetune_trainer.prepare.remote.place import place
from finetune_trainer.prepare.remote.snapshot import Snapshot, Source
from finetune_trainer.prepare.sources import local_path

ORIGIN = ".finetune-source"
"""File in a downloaded model's folder: the source and revision that it came from."""
# Configuration and tokenizer, and weights as safetensors. Pickled weights and Python code can run anything: never fetched.
TOKENIZER_FILES = (
    "*.json",
    "*.jinja",
    "tokenizer.model",
    "*.tiktoken",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
)
MODEL_FILES = ("*.safetensors", *TOKENIZER_FILES)
_FOLDERS = ("", "additional_chat_templates/")
"""Where a model's files stand; what lies deeper is the same model in another format."""


def fetch_base_model(run: RunConfig) -> Path:
    """Make ``paths.base_model`` lead to the model. A download appears there whole or not at all.

    Raises StageFailure where the source cannot be read.
    """
    return fetch_folder(run, "spec.model", run.spec.model, run.paths.base_model)


def fetch_folder(run: RunConfig, field: str, named: Model | Adapter, final: Path) -> Path:
    """Make ``final`` lead to a model or adapter: a link to where it is mounted, or the download, whole.

    ``field`` is where the spec names it. Raises StageFailure where the source cannot be read.
    """
    mounted = _mounted(run, field, named.source)
    return _downloaded(_source(run, field, named), final) if mounted is None else _linked(mounted, final)


def mounted_model(run: RunConfig) -> Path | None:
    """The model's folder on a mounted volume; None for one to download. Raises StageFailure where it is no folder."""
    return _mounted(run, "spec.model", run.spec.model.source)


def _mounted(run: RunConfig, field: str, uri: str) -> Path | None:
    mounted = local_path(run, uri, field)
    if mounted is not None and not mounted.is_dir():
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"{field}.source: {uri} ({mounted}) is not a folder; check the path inside the volume.",
        )
    return mounted


def remote_revision(run: RunConfig, field: str, named: Model | Adapter) -> str | None:
    """The revision of a downloaded model or adapter that this run holds on to; None for a mounted one. Raises StageFailure."""
    mounted = _mounted(run, field, named.source)
    return None if mounted is not None else _snapshot(_source(run, field, named)).revision


def download_tokenizer(run: RunConfig) -> Path:
    """Configuration and tokenizer of a model that is not mounted, without its weights. Raises StageFailure."""
    source = _source(run, "spec.model", run.spec.model)
    snapshot = _snapshot(source)
    small = snapshot.only(lambda name: _is_one_of(name, source.parsed.path, TOKENIZER_FILES))
    return downloads.provide(source, small) / source.parsed.path


def _source(run: RunConfig, field: str, named: Model | Adapter) -> Source:
    return Source(run, field, named.source, "model", named.revision, named.token_secret)


def _snapshot(source: Source) -> Snapshot:
    folder = source.parsed.path
    snapshot = downloads.resolve(source, lambda name: _is_one_of(name, folder, MODEL_FILES))
    if not snapshot.files:
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"{source.field}.source: {source.uri}: there are no files of a model (config.json, *.safetensors) "
            f"in {folder or 'its root'}; check the path.",
        )
    return snapshot


def _is_one_of(name: str, folder: str, patterns: Sequence[str]) -> bool:
    parent, _, file = name.rpartition("/")
    expected = {f"{folder}/{below}".strip("/") for below in _FOLDERS}
    return parent in expected and any(fnmatch.fnmatchcase(file, pattern) for pattern in patterns)


def _linked(target: Path, link: Path) -> Path:
    if link.is_symlink() and Path(os.readlink(link)) == target:
        return link
    beside = link.with_name(f".{link.name}.link")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    remove(link)
    beside.replace(link)
    sync_folder(link.parent)
    return link


def _downloaded(source: Source, final: Path) -> Path:
    snapshot, partial = _snapshot(source), final.with_name(f".{final.name}.partial")
    origin = f"{source.uri}@{snapshot.revision}"
    if _origin(final) == origin:
        return final
    files = downloads.provide(source, snapshot)
    shutil.rmtree(partial, ignore_errors=True)
    place(snapshot, files, partial)
    folder = partial / source.parsed.path
    write_whole(folder / ORIGIN, origin.encode())
    sync_tree(folder)
    remove(final)
    folder.rename(final)
    shutil.rmtree(partial, ignore_errors=True)
    sync_folder(final.parent)
    return final


def _origin(folder: Path) -> str | None:
    try:
        return (folder / ORIGIN).read_text(encoding="utf-8")
    except OSError:
        return None
