"""From the FineTuneJob's JSON to the typed view that a plan is made from."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pydantic import ValidationError

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.plan.types import JobView
from finetune_operator.shell.errors import wrong_fields


class InvalidSpec(Exception):
    """The spec cannot be read: the API server's schema let through what this operator does not understand."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(f"spec.{problem}" for problem in problems))


class UnreadableStatus(Exception):
    """The status cannot be read, so it cannot be told what was done already: nothing may be done."""


def read_status(manifest: dict[str, Any]) -> FineTuneJobStatus:
    """The status that stands on the object; an empty one where none does. Raises UnreadableStatus."""
    try:
        return FineTuneJobStatus.model_validate(manifest.get("status") or {}, extra="ignore")
    except ValidationError as error:
        problems = "; ".join(f"status.{problem}" for problem in wrong_fields(error))
        raise UnreadableStatus(f"{problems}. A newer operator may have written it; run that version.") from error


def read_job(manifest: dict[str, Any]) -> JobView:
    """The parsed FineTuneJob. Fields of a newer CRD are ignored. Raises InvalidSpec naming every wrong field, and UnreadableStatus."""
    try:
        spec = FineTuneJobSpec.model_validate(manifest["spec"], extra="ignore")
    except ValidationError as error:
        raise InvalidSpec(wrong_fields(error)) from error
    metadata = manifest["metadata"]
    return JobView(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        generation=metadata["generation"],
        created=dt.datetime.fromisoformat(metadata["creationTimestamp"]),
        spec=spec,
        status=read_status(manifest),
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
    )
