"""Where models and datasets come from: source URIs and what each scheme means."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, StringConstraints

from finetune_operator.api.address import METADATA_MESSAGE, address_cel, is_allowed_address
from finetune_operator.api.base import SecretKeyReference, cel

# One alternative per scheme, so that a claim, bucket or ConfigMap of another namespace cannot be spelled at all.
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_PATH = rf"{_SEGMENT}(/{_SEGMENT})*"
_NAME = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
SOURCE_PATTERN = (
    rf"^((hf|ms)://{_SEGMENT}/{_SEGMENT}(/{_PATH})?|pvc://{_NAME}(/{_PATH})?|configmap://{_NAME}/{_SEGMENT}"
    rf"|s3://{_NAME}(/{_PATH})?|oci://[a-z0-9][A-Za-z0-9._:/@-]*|file:///[^\x00]*)$"
)
REVISION_PATTERN = rf"^{_PATH}$"
"""A branch, tag or commit. Downloads are kept in folders of that name, so it must not climb."""
PUSH_PATTERN = rf"^((hf|ms)://{_SEGMENT}/{_SEGMENT}|s3://{_NAME}(/{_PATH})?)$"
"""Where a model is uploaded to."""


def _at_an_allowed_address(uri: str) -> str:
    if not is_allowed_address(uri):
        raise ValueError(METADATA_MESSAGE)
    return uri


Source = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512, pattern=SOURCE_PATTERN),
    AfterValidator(_at_an_allowed_address),
]


class Scheme(enum.StrEnum):
    """Schemes of a source URI."""

    HUGGING_FACE = "hf"
    """``hf://org/name``: a repository of the Hugging Face hub (or of the mirror that the operator is set to)."""
    MODELSCOPE = "ms"
    """``ms://org/name``: a repository of ModelScope."""
    CLAIM = "pvc"
    """``pvc://claim/path``: a folder or file on a PersistentVolumeClaim of the job's namespace."""
    CONFIG_MAP = "configmap"
    """``configmap://name/key``: a small dataset in a ConfigMap of the job's namespace."""
    S3 = "s3"
    """``s3://bucket/prefix``: an object store that speaks S3."""
    OCI = "oci"
    """``oci://registry/name:tag``: an image that the kubelet mounts as a volume (KEP-4639, on by default since Kubernetes 1.35)."""
    FILE = "file"
    """``file:///path``: a local path, for ``finetune run`` only; the API server refuses it."""


@dataclass(frozen=True, slots=True)
class ParsedSource:
    """A source URI taken apart. ``owner`` is the repository, claim, ConfigMap, bucket or image; ``path`` what lies in it."""

    scheme: Scheme
    owner: str
    path: str = ""


def parse_source(uri: str) -> ParsedSource:
    """Take a valid source URI apart. Raises ValueError on an unknown scheme."""
    scheme_text, _, rest = uri.partition("://")
    scheme = Scheme(scheme_text)
    if scheme is Scheme.FILE:
        return ParsedSource(scheme, owner="", path=rest)
    if scheme is Scheme.OCI:
        return ParsedSource(scheme, owner=rest)
    parts = rest.split("/")
    owner_length = 2 if scheme in (Scheme.HUGGING_FACE, Scheme.MODELSCOPE) else 1
    return ParsedSource(scheme, owner="/".join(parts[:owner_length]), path="/".join(parts[owner_length:]))


def keys_read(uri: str, reference: SecretKeyReference) -> list[SecretKeyReference]:
    """What is read of the Secret that a source's tokenSecret names: one key, or for s3:// those of ``S3_KEYS``."""
    if parse_source(uri).scheme is not Scheme.S3:
        return [reference]
    return [SecretKeyReference(name=reference.name, key=key) for key in S3_KEYS]


S3_SESSION_KEY = "AWS_SESSION_TOKEN"
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", S3_SESSION_KEY)
"""Keys of a Secret for an object store; the last need not be there."""
NOT_LOCAL = "is a local path, which only `finetune run` can read; copy it to a claim and write pvc://CLAIM/PATH"
SOURCE_RULES: dict[str, Any] = {
    "x-kubernetes-validations": [
        cel("!self.startsWith('file://')", NOT_LOCAL),
        cel(address_cel("self"), METADATA_MESSAGE),
    ]
}
"""What the API server checks of a source beside its pattern."""
