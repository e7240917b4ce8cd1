"""Where pods find things: the mount points that the images rely on."""

from __future__ import annotations

JOB = "/finetune/job"
CONFIG = "/finetune/config"
RUN_FILE = f"{CONFIG}/run.json"
PROGRESS = "/finetune/progress"
TOKEN = "/finetune/token"  # noqa: S105  # a folder, not a token
SECRETS = "/finetune/secrets"
INPUTS = "/finetune/inputs"
CACHE = "/finetune/cache"
CERTIFICATES = "/finetune/certificates"
HOME = "/home/finetune"

RUN_KEY = "run.json"
CERTIFICATE_KEY = "ca.crt"
TOKEN_FILE = "token"  # noqa: S105  # a file name


def claim_folder(claim: str) -> str:
    """Where the claim of a pvc:// source is mounted."""
    return f"{INPUTS}/{claim}"


def config_map_folder(name: str) -> str:
    """Where the ConfigMap of a configmap:// source is mounted."""
    return f"{INPUTS}/configmap-{name}"


def image_folder(index: int) -> str:
    """Where the image of the index-th oci:// source is mounted."""
    return f"{INPUTS}/image-{index}"


def secret_folder(name: str) -> str:
    """Where a Secret is mounted, one file a key."""
    return f"{SECRETS}/{name}"
