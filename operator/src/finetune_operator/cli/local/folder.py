"""The folder of a local run, ``DIR/<job>/``: run.json, who works in it, and what may no longer change."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_operator.api.delivery import ServingMode
from finetune_operator.api.result import read_results, write_whole
from finetune_operator.api.run import RunConfig
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.local.inputs import RUN_JSON, SECRETS, Inputs

LOCK = ".lock"


def is_run_folder(path: Path) -> bool:
    """Whether ``finetune run`` has made the folder."""
    return (path / RUN_JSON).is_file()


@dataclass(frozen=True, slots=True)
class LocalPart:
    """What of a local run is meant."""

    root: Path
    mode: ServingMode | None
    """Its adapter or its merged model; None for whatever the job serves."""


_PARTS = {"adapter": ServingMode.ADAPTER, "merged": ServingMode.MERGED, "model": None}


def local_part(path: Path) -> LocalPart | None:
    """A folder of ``finetune run``, or of one of its models: ``DIR/<job>/adapter``. None for any other path."""
    path = path.absolute()
    if is_run_folder(path):
        return LocalPart(path, None)
    if path.name in _PARTS and path.is_dir() and is_run_folder(path.parent):
        return LocalPart(path.parent, _PARTS[path.name])
    return None


def load_config(root: Path) -> RunConfig:
    """run.json of a folder. Raises CommandError where it cannot be read."""
    try:
        return RunConfig.load(root / RUN_JSON)
    except FileNotFoundError:
        raise CommandError(f"{root}: no {RUN_JSON}, so this is no folder of `finetune run`") from None
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise CommandError(f"{root / RUN_JSON}: {field}: written by another version; use another --workdir") from None


def load_results(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Figures of the finished stages. Raises CommandError where result.json is damaged."""
    try:
        return read_results(config.paths.result)
    except ValueError as error:
        raise CommandError(f"{config.paths.result}: not JSON ({error}); delete it to run all stages again") from None


@contextlib.contextmanager
def locked(root: Path) -> Iterator[int]:
    """Keep other runs out of the folder for as long as the yielded file descriptor is open, here or in a child.

    The kernel gives the lock back however the processes end: nothing is left to clean up.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CommandError(
                f"{root}: process {file.read().strip()}, or a stage that it started, still runs; wait for it or stop it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def write_folder(config: RunConfig, inputs: Inputs) -> None:
    """Write run.json and what it points to."""
    write_inputs(config, inputs)
    write_whole(Path(config.root) / RUN_JSON, config.dump().encode())


def write_inputs(config: RunConfig, inputs: Inputs) -> None:
    """Write what a run.json points to: the ConfigMaps that stood in the manifests, and links to the Secrets."""
    for name, path in config.config_maps.items():
        if name not in inputs.config_maps:
            _write_files(Path(path), inputs.config_map_documents[name])
    _link_secrets(Path(config.root) / SECRETS, inputs.secrets)


def _write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for key, content in contents.items():
        write_whole(folder / key, content)


def _link_secrets(folder: Path, secrets: Mapping[str, Path]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for name, path in secrets.items():
        (folder / name).symlink_to(path.resolve())


def changes_refused(new: RunConfig) -> list[str]:
    """``spec.field: was X, is Y, …`` for every field that differs from the folder's run and that its results depend on."""
    root = Path(new.root)
    if not is_run_folder(root):
        return []
    old = load_config(root)
    fixed = [field for field in FineTuneJobSpec.model_fields if _trains_otherwise(old, new, field)]
    if "merge" in load_results(old):
        fixed.append("merge")
    return [line for field in fixed for line in _differences(field, old, new)]


def _trains_otherwise(old: RunConfig, new: RunConfig, field: str) -> bool:
    spec = old.spec.model_copy(update={field: getattr(new.spec, field)})
    return old.model_copy(update={"spec": spec}).training_hash() != old.training_hash()


def _differences(field: str, old: RunConfig, new: RunConfig) -> list[str]:
    was, now = (_leaves({field: config.spec.to_manifest().get(field)}, "spec") for config in (old, new))
    return [
        f"{path}: was {was.get(path, 'not set')}, is {now.get(path, 'not set')}, but {new.root} holds the former run; "
        "use another --workdir, or remove that folder"
        for path in dict.fromkeys([*was, *now])
        if was.get(path) != now.get(path)
    ]


def _leaves(value: Any, path: str) -> dict[str, str]:
    if isinstance(value, dict):
        return {name: leaf for key, child in value.items() for name, leaf in _leaves(child, f"{path}.{key}").items()}
    if isinstance(value, list):
        return {name: leaf for i, child in enumerate(value) for name, leaf in _leaves(child, f"{path}[{i}]").items()}
    return {} if value is None else {path: json.dumps(value)}


def is_locked(root: Path) -> bool:
    """Whether a run works in the folder right now."""
    try:
        with (root / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
