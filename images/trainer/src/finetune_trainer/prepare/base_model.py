"""Puts the base model where every stage finds it: a link to a mounted volume, or a whole download."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.result import sync_folder, write_whole
from finetune_operator.api.run import RunConfig
from finetune_trainer.folders import remove, sync_tree
from finetune_trainer.prepare import hub
from finetune_trainer.prepare.sources import local_path

ORIGIN = ".finetune-source"
"""File in a downloaded model's folder: the source and revision that it came from."""


def fetch_base_model(run: RunConfig) -> Path:
    """Make ``paths.base_model`` lead to the model. A download appears there whole or not at all.

    Raises StageFailure where the source cannot be read.
    """
    mounted = mounted_model(run)
    return _downloaded(run) if mounted is None else _linked(mounted, run.paths.base_model)


def mounted_model(run: RunConfig) -> Path | None:
    """The model's folder on a mounted volume; None for one of a hub. Raises StageFailure where it is no folder."""
    mounted = local_path(run, run.spec.model.source, "spec.model")
    if mounted is not None and not mounted.is_dir():
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"spec.model.source: {run.spec.model.source} ({mounted}) is not a folder; check the path inside the volume.",
        )
    return mounted


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


def _downloaded(run: RunConfig) -> Path:
    final, partial = run.paths.base_model, run.paths.root / ".base.partial"
    origin = f"{run.spec.model.source}@{run.spec.model.revision or 'main'}"
    if _origin(final) == origin:
        return final
    if partial.exists() and _origin(partial) != origin:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    write_whole(partial / ORIGIN, origin.encode())
    folder = hub.download_model(run, partial)
    if folder != partial:
        shutil.copy(partial / ORIGIN, folder)
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
