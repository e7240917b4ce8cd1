"""Reads the current context of a kubeconfig file."""

from __future__ import annotations

import base64
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


class KubeconfigError(Exception):
    """The kubeconfig lacks something; the message names the file and the field."""


@dataclass(frozen=True)
class Kubeconfig:
    server: str
    ca: bytes | None
    client_certificate: bytes | None
    client_key: bytes | None
    token: str | None

    def ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca.decode() if self.ca else None)
        if self.client_certificate and self.client_key:
            # The ssl module loads a client certificate from a file only.
            with tempfile.NamedTemporaryFile(suffix=".pem") as file:
                file.write(self.client_certificate + b"\n" + self.client_key)
                file.flush()
                context.load_cert_chain(file.name)
        return context


def load(path: Path) -> Kubeconfig:
    config = yaml.safe_load(path.read_text())
    context = _named(path, config, "contexts", config.get("current-context"))["context"]
    cluster = _named(path, config, "clusters", context["cluster"])["cluster"]
    user = _named(path, config, "users", context["user"])["user"]
    return Kubeconfig(
        server=cluster["server"].rstrip("/"),
        ca=_content(path, cluster, "certificate-authority"),
        client_certificate=_content(path, user, "client-certificate"),
        client_key=_content(path, user, "client-key"),
        token=user.get("token"),
    )


def _named(path: Path, config: dict[str, Any], section: str, name: str | None) -> dict[str, Any]:
    for entry in config.get(section) or []:
        if entry["name"] == name:
            found: dict[str, Any] = entry
            return found
    raise KubeconfigError(f"{path}: {section}: found no entry named {name!r}; set current-context to one that exists")


def _content(path: Path, section: dict[str, Any], key: str) -> bytes | None:
    if data := section.get(f"{key}-data"):
        return base64.b64decode(str(data))
    if name := section.get(key):
        return (path.parent / str(name)).read_bytes()
    return None
