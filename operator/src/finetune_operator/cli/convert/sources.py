"""Models and datasets as LLaMA-Factory names them, as source URIs."""

from __future__ import annotations

import os
import re

from finetune_operator.api.source import Scheme

HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")
_PATH_BEGINNINGS = ("/", "./", "../", "~")


class NoSource(ValueError):
    """The name is neither a path nor a repository."""


def model_source(name: str, hub: Scheme) -> str:
    """The URI of a model: a folder here, else a repository of the hub, as transformers decides. Raises NoSource."""
    if name.startswith(_PATH_BEGINNINGS) or name in (".", "..") or name.count("/") > 1 or os.path.isdir(name):
        return file_source(name)
    return hub_source(name, hub)


def file_source(path: str) -> str:
    """The URI of a path of this machine; a relative one counts from the working directory, as in LLaMA-Factory."""
    return f"{Scheme.FILE.value}://{os.path.abspath(os.path.expanduser(path))}"


def hub_source(name: str, hub: Scheme) -> str:
    """The URI of a repository. Raises NoSource."""
    if not HUB_NAME.fullmatch(name):
        raise NoSource(f"found {name}, which is no folder here; expected a path, or org/name of a hub")
    return f"{hub.value}://{name}"
