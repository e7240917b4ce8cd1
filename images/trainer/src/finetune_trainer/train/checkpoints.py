"""Checkpoints that are whole or not there: staged, made durable, renamed, and marked committed last.

``checkpoint-STEP/`` holds the Trainer's files, ``manifest.json`` (file, bytes, sha256) and an empty ``COMMITTED``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_operator.api.result import sync_folder, write_whole
from finetune_trainer.folders import fresh_folder, remove, sync_tree
from finetune_trainer.train.say import say

MANIFEST = "manifest.json"
COMMITTED = "COMMITTED"
STAGING = ".staging"
_NAME = re.compile(r"checkpoint-(\d+)")


class InvalidCheckpoint(Exception):
    """A checkpoint that must not be resumed from. The message says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed checkpoint."""

    path: Path
    step: int


class CheckpointStore:
    """The checkpoints of one job. ``identity`` names model, data and hyper-parameters: only equal ones are resumed."""

    def __init__(
        self, folder: Path, identity: str, limit: int, layout: str = "", alive: Callable[[], object] = lambda: None
    ) -> None:
        """``layout`` says how many processes write a checkpoint, and how they share it: others cannot go on from it.

        ``alive`` is called with each file that was read or written whole: that takes minutes for large models.
        """
        self._folder = folder
        self._identity = identity
        self._limit = limit
        self._layout = layout
        self._alive = alive
        self._left_alone: set[str] = set()
        self.passed_over: dict[str, str] = {}
        """By name, why `newest_valid` did not take each newer checkpoint."""

    @property
    def staging(self) -> Path:
        """Folder that unfinished checkpoints are written to."""
        return self._folder / STAGING

    def open(self) -> None:
        """Make the folders, and clear away what a killed process left half written."""
        fresh_folder(self.staging)

    @property
    def committed(self) -> list[Checkpoint]:
        """The checkpoints that were finished, newest first."""
        found = [each for each in self._newest_first() if each.path.name not in self._left_alone]
        return [checkpoint for checkpoint in found if (checkpoint.path / COMMITTED).exists()]

    def commit(self, staged: Path, step: int, best: int | None = None) -> Checkpoint:
        """Make a staged checkpoint the newest one, then delete those beyond the limit, but never that of step ``best``."""
        files = [{"path": name, **self._facts(staged / name)} for name in _names(staged)]
        manifest = {"step": step, "identity": self._identity, "layout": self._layout, "files": files}
        write_whole(staged / MANIFEST, json.dumps(manifest, indent=1).encode())
        sync_tree(staged)
        final = self._folder / f"checkpoint-{step}"
        remove(final)
        staged.rename(final)
        sync_folder(self._folder)
        write_whole(final / COMMITTED, b"")
        self._left_alone.discard(final.name)
        self._prune(best)
        return Checkpoint(final, step)

    def newest_valid(self) -> Checkpoint | None:
        """The newest checkpoint that is whole and of this training; newer ones that are not are named and left alone."""
        for checkpoint in self._newest_first():
            try:
                self._validate(checkpoint)
            except InvalidCheckpoint as reason:
                self.passed_over[checkpoint.path.name] = str(reason)
                self._left_alone.add(checkpoint.path.name)
                say(f"checkpoint {checkpoint.path.name} is not resumed from: {reason}")
            else:
                return checkpoint
        return None

    def _newest_first(self) -> list[Checkpoint]:
        if not self._folder.is_dir():
            return []
        found = ((path, _NAME.fullmatch(path.name)) for path in self._folder.iterdir())
        checkpoints = [Checkpoint(path, int(match[1])) for path, match in found if match]
        return sorted(checkpoints, key=lambda checkpoint: checkpoint.step, reverse=True)

    def _validate(self, checkpoint: Checkpoint) -> None:
        if not (checkpoint.path / COMMITTED).exists():
            raise InvalidCheckpoint(f"it has no {COMMITTED} marker, so it was not finished")
        manifest = _read_manifest(checkpoint.path)
        if manifest.get("identity") != self._identity:
            raise InvalidCheckpoint("it belongs to a training with another configuration or other data")
        if manifest.get("layout", "") != self._layout:
            raise InvalidCheckpoint(f"it was written by {manifest.get('layout')}, and this training is {self._layout}")
        # A file of the Trainer's choice of names would be loaded, whoever put it there.
        if other := set(_names(checkpoint.path)) - {COMMITTED, *(entry["path"] for entry in manifest["files"])}:
            raise InvalidCheckpoint(f"{min(other)} was not written with it")
        for entry in manifest["files"]:
            if self._facts(checkpoint.path / entry["path"]) != {"bytes": entry["bytes"], "sha256": entry["sha256"]}:
                raise InvalidCheckpoint(f"{entry['path']} is not what was written")

    def _facts(self, path: Path) -> dict[str, Any]:
        facts = _facts(path)
        self._alive()
        return facts

    def _prune(self, best: int | None) -> None:
        # One that is torn, or another training's, may bear a higher step: it must not crowd out what was just saved.
        own = [checkpoint for checkpoint in self._newest_first() if checkpoint.path.name not in self._left_alone]
        for checkpoint in own[self._limit :]:
            if checkpoint.step == best:
                continue
            # Without its marker first, a half-deleted checkpoint could pass for a whole one.
            (checkpoint.path / COMMITTED).unlink(missing_ok=True)
            remove(checkpoint.path)


@contextmanager
def whole_or_nothing(staged: Path) -> Iterator[None]:
    """Where writing a checkpoint fails, give its room back and raise what the disk says, as far as it says anything."""
    try:
        yield
    except Exception:
        try:
            _try_disk(staged.parent)
        finally:
            remove(staged)
        raise


def _try_disk(folder: Path) -> None:
    """Write a little. torch.save reports a full disk as a RuntimeError about positions, which nobody could tell."""
    probe = folder / ".probe"
    try:
        probe.write_bytes(bytes(1 << 20))
    finally:
        probe.unlink(missing_ok=True)


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        entries = [(str(entry["path"]), int(entry["bytes"]), str(entry["sha256"])) for entry in manifest["files"]]
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(f"its {MANIFEST} cannot be read ({error})") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidCheckpoint(f"its {MANIFEST} is not one ({type(error).__name__}: {error})") from error
    if not entries:
        raise InvalidCheckpoint(f"its {MANIFEST} names no file")
    return manifest


def _names(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            yield str(path.relative_to(folder))


def _facts(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidCheckpoint(f"{path.name} cannot be read ({error.strerror})") from error
    return {"bytes": path.stat().st_size, "sha256": digest}
