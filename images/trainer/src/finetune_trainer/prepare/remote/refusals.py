"""One form for every way in which a host does not give what a source names: field, URI, cause, host, way out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.redact import REDACTED, redact_known_kinds
from finetune_trainer.prepare.remote.snapshot import Source

_SHORTEST_SECRET = 6
"""Characters; shorter ones are part of ordinary words."""


class HostAway(StageFailure):
    """The host cannot be reached or has a fault of its own: later it may well answer."""

    def __init__(self, source: Source, host: str, cause: str, advice: str) -> None:
        super().__init__(ExitCode.SOURCE_UNREACHABLE, _text(source, host, cause, advice))
        self.cause = without_secrets(f"{source.uri}: {cause}", source)


def refusal(source: Source, host: str, cause: str, advice: str) -> StageFailure:
    """The source as the user wrote it is not to be had."""
    return StageFailure(ExitCode.SOURCE_UNREACHABLE, _text(source, host, cause, advice))


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What leads to another host: a setting of the operator, and an environment variable for local runs."""

    setting: str
    variable: str


def away(source: Source, host: str, error: BaseException, elsewhere: Elsewhere) -> HostAway:
    """There is no connection."""
    cause = f"{host_word(source)} cannot be reached: {first_line(error)}"
    in_cluster = (
        f"the cluster's way out, set the operator's settings.{elsewhere.setting} to a mirror, or use pvc://CLAIM/PATH"
    )
    locally = f"the network, set {elsewhere.variable} to a mirror, or use file:///PATH"
    return HostAway(source, host, cause, f"Check {in_cluster if source.run.namespace else locally}.")


def faulty(source: Source, host: str, status: object) -> HostAway:
    """The host answers, with an error that is not the user's."""
    return HostAway(source, host, f"{host_word(source)} answered {status}", "Try again later, or use a mirror.")


def damaged(source: Source, host: str, path: str, found: str) -> HostAway:
    """What came is not what the host says that the file is."""
    return HostAway(source, host, f"{path} did not come whole: {found}", "Start the job again: what has come is kept.")


def secret_advice(source: Source) -> str:
    """How to give a token."""
    return f"set {source.field}.tokenSecret to a Secret with a token that may read it"


def host_word(source: Source) -> str:
    """What the host is called in a message."""
    return "the object store" if source.parsed.scheme.value == "s3" else "the hub"


def first_line(error: BaseException) -> str:
    """The error's words without the pages that libraries add."""
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__


def without_secrets(text: str, source: Source) -> str:
    """What a host says may be what it was sent: neither the job's mounted tokens nor what looks like one is repeated."""
    for path in Path(source.run.secrets).glob("*/*"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            value = path.read_text(encoding="utf-8").strip()
            text = text.replace(value, REDACTED) if len(value) >= _SHORTEST_SECRET else text
    return redact_known_kinds(text)


def _text(source: Source, host: str, cause: str, advice: str) -> str:
    return without_secrets(f"{source.field}.source: {source.uri}: {cause} ({host}). {advice}", source)
