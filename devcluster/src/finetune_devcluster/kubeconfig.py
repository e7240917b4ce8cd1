"""Kubeconfig files with everything embedded, so that one file can be copied anywhere."""

import base64
from pathlib import Path
from typing import Any

import yaml

from finetune_devcluster.certificates import KeyPair
from finetune_devcluster.files import write_atomically


def write(file: Path, cluster: str, server: str, authority: Path, client: KeyPair) -> None:
    """Write the kubeconfig of one user; only the owner may read it, because it holds a private key."""
    document = render(cluster, server, authority, client)
    write_atomically(file, yaml.safe_dump(document, sort_keys=False), 0o600)


def render(cluster: str, server: str, authority: Path, client: KeyPair) -> dict[str, Any]:
    """The kubeconfig of one user of one cluster."""
    user = {"client-certificate-data": _base64(client.certificate), "client-key-data": _base64(client.key)}
    context = {"cluster": cluster, "user": client.certificate.stem}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": cluster, "cluster": {"server": server, "certificate-authority-data": _base64(authority)}}
        ],
        "users": [{"name": client.certificate.stem, "user": user}],
        "contexts": [{"name": cluster, "context": context}],
        "current-context": cluster,
    }


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
