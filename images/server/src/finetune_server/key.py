"""The key that clients have to show."""

from __future__ import annotations

from pathlib import Path

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig


def read_api_key(run: RunConfig) -> str | None:
    """The key, read anew so that a changed Secret counts; None where the job asks for none.

    Raises StageFailure (INVALID_SPEC) where the Secret has no such key, or an empty one: an open endpoint was not asked for.
    """
    reference = run.spec.serving.api_key_secret if run.spec.serving is not None else None
    if reference is None:
        return None
    path = Path(run.secrets) / reference.name / reference.key
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            f"serving.apiKeySecret: Secret {reference.name} has no readable key {reference.key} ({error}); add it.",
        ) from error
    if not key:
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            f"serving.apiKeySecret: key {reference.key} of Secret {reference.name} is empty; put a key there.",
        )
    return key
