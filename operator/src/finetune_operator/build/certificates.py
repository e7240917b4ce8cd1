"""Certificate authorities of the platform's own, for the pods that go to the network."""

from __future__ import annotations

from finetune_operator.build import layout
from finetune_operator.build.mount import Mount
from finetune_operator.build.pod import literal
from finetune_operator.build.types import Manifest
from finetune_operator.settings import Settings

_READ_BY = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
"""Variables by which OpenSSL (so httpx, of huggingface_hub), requests (ModelScope, trackers) and botocore are told."""
_FILE = "ca-bundle.crt"


def mounts(settings: Settings) -> list[Mount]:
    """The bundle as one file; nothing where the images' own authorities do."""
    wanted = settings.certificates
    if wanted.config_map is None:
        return []
    source = {"configMap": {"name": wanted.config_map, "items": [{"key": wanted.key, "path": _FILE}]}}
    return [Mount(name="certificates", source=source, path=layout.CERTIFICATES)]


def environment(settings: Settings) -> list[Manifest]:
    """Variables that name the file."""
    if settings.certificates.config_map is None:
        return []
    return [literal(name, f"{layout.CERTIFICATES}/{_FILE}") for name in _READ_BY]
