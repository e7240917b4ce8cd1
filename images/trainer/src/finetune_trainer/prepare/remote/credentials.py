"""Tokens and keys from the Secrets that the kubelet mounts."""

from __future__ import annotations

from pathlib import Path

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.source import S3_KEYS
from finetune_trainer.prepare.remote.snapshot import Source

ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = S3_KEYS


def token(source: Source) -> str | None:
    """The access token that the source's tokenSecret holds; None without one. Raises StageFailure where the key is missing."""
    reference = source.token_secret
    return None if reference is None else _read(source, reference.key)


def s3_keys(source: Source) -> dict[str, str] | None:
    """Arguments for s3fs from the Secret's keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and (if there) AWS_SESSION_TOKEN.

    None without a tokenSecret. Raises StageFailure where a key is missing.
    """
    if source.token_secret is None:
        return None
    keys = {"key": _read(source, ACCESS_KEY), "secret": _read(source, SECRET_KEY)}
    if _path(source, SESSION_TOKEN).is_file():
        keys["token"] = _read(source, SESSION_TOKEN)
    return keys


def _path(source: Source, key: str) -> Path:
    name = source.token_secret.name if source.token_secret else ""
    return Path(source.run.secrets) / name / key


def _read(source: Source, key: str) -> str:
    path = _path(source, key)
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"{source.field}.tokenSecret: secret {path.parent.name!r} has no key {key!r} at {path} ({error.strerror}); "
            "create the key or correct the name.",
        ) from error
