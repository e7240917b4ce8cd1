"""How a stage ends: exit codes, termination message, and the one wrapper that every image's main runs in."""

from __future__ import annotations

import contextlib
import enum
import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune_operator.api import conditions
from finetune_operator.api.redact import redact_known_kinds

MESSAGE_LIMIT = 4096
"""Bytes of a termination message that Kubernetes keeps."""
TERMINATION_LOG_VARIABLE = "FINETUNE_TERMINATION_LOG"
DEFAULT_TERMINATION_LOG = "/dev/termination-log"

Figure = str | int | float

SKIPPED_CHECKPOINTS = "skippedCheckpoints"
"""Figure of train: checkpoints that were damaged or another training's, and so not resumed from, with why."""
FLOAT8_LOSS_DIFFERENCE = "float8LossDifference"
"""Figure of train, precision FP8Base: what rounding changes the loss of the first rows by, relative to the loss in 16 bits."""
BASE_NOT_ROUNDED = "baseNotRounded"
"""Figure of train: why precision FP8Base was not computed in; absent where it was."""


class ExitCode(enum.IntEnum):
    """Exit codes of the images. 64 to 69 are the user's input and never retried."""

    DONE = 0
    INVALID_SPEC = 64
    INVALID_DATA = 65
    MODEL_UNUSABLE = 66
    SOURCE_UNREACHABLE = 67
    PARITY_LOST = 68
    INTERNAL = 70
    OUT_OF_MEMORY = 71
    STORAGE_FULL = 72
    LOSS_NOT_FINITE = 73
    NO_PROGRESS = 74
    PREEMPTED = 75


REASONS: Mapping[int, str] = {
    ExitCode.INVALID_SPEC: conditions.INVALID_SPEC,
    ExitCode.INVALID_DATA: conditions.INVALID_DATA,
    ExitCode.MODEL_UNUSABLE: conditions.MODEL_UNUSABLE,
    ExitCode.SOURCE_UNREACHABLE: conditions.SOURCE_UNREACHABLE,
    ExitCode.PARITY_LOST: conditions.PARITY_LOST,
    ExitCode.INTERNAL: conditions.INTERNAL_ERROR,
    ExitCode.OUT_OF_MEMORY: conditions.OUT_OF_MEMORY,
    ExitCode.STORAGE_FULL: conditions.STORAGE_FULL,
    ExitCode.LOSS_NOT_FINITE: conditions.LOSS_NOT_FINITE,
    ExitCode.NO_PROGRESS: conditions.NO_PROGRESS,
    ExitCode.PREEMPTED: conditions.PREEMPTED,
}
"""Reason that stands in a condition for each exit code; any other code is INFRASTRUCTURE."""

PERMANENT = frozenset(
    {
        ExitCode.INVALID_SPEC,
        ExitCode.INVALID_DATA,
        ExitCode.MODEL_UNUSABLE,
        ExitCode.SOURCE_UNREACHABLE,
        ExitCode.PARITY_LOST,
        ExitCode.INTERNAL,
        ExitCode.OUT_OF_MEMORY,
        ExitCode.STORAGE_FULL,
        ExitCode.LOSS_NOT_FINITE,
    }
)
"""Exit codes after which the same pod would fail the same way again. 74 and 75 are tried again, as are codes not listed."""


class StageFailure(Exception):
    """A stage cannot go on for a reason that is known: what to say and with which code to exit.

    ``message`` names the field or file:line, what was found, what was expected and what to do.
    """

    def __init__(self, code: ExitCode, message: str, **figures: Figure) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.figures = figures


@dataclass(frozen=True, slots=True)
class TerminationMessage:
    """The last words of a container: one JSON object of at most 4096 bytes."""

    reason: str
    message: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The JSON text, with the message cut so that the whole fits."""
        text = self.message
        while True:
            encoded = json.dumps(
                {"reason": self.reason, "message": text, "figures": dict(self.figures)}, ensure_ascii=False
            ).encode()
            excess = len(encoded) - MESSAGE_LIMIT
            if excess <= 0 or not text:
                return encoded
            # No character takes more than 6 bytes of JSON, so that never too much is cut at once.
            text = text[: -max(1, excess // 6)]

    @classmethod
    def decode(cls, text: str) -> TerminationMessage | None:
        """Read a termination message; None where the text is not one (a container that died without last words)."""
        try:
            parsed = json.loads(text)
            return cls(str(parsed["reason"]), str(parsed.get("message", "")), dict(parsed.get("figures") or {}))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def run_stage(stage: Callable[[], Mapping[str, Figure]], *, announce: bool = True) -> int:
    """Run one stage, write its termination message and return its exit code.

    ``stage`` returns the figures that the status shows; ``announce`` has a failure told on stderr too.
    Known failures are StageFailure; running out of memory or
    disk is recognised wherever it happens; anything else is reported as internal, with the traceback on stderr.
    """
    try:
        figures = stage()
    except StageFailure as failure:
        return _end(failure.code, failure.message, failure.figures, announce)
    except Exception as error:
        code = classify(error)
        if code is ExitCode.INTERNAL:
            print(redact_known_kinds(traceback.format_exc()), file=sys.stderr, flush=True)
        return _end(code, _describe(error, code), {}, announce)
    _write(TerminationMessage(conditions.SUCCEEDED, "", figures))
    return ExitCode.DONE


def exit_on_sigterm(said: str) -> None:
    """End at once with code PREEMPTED on SIGTERM, with ``said`` as the last words, until another handler takes over.

    To be called before anything heavy is imported: the first process of a container has no default action for SIGTERM,
    so that a pod would go on until it is killed after its grace period.
    """

    def told_to_stop() -> Mapping[str, Figure]:
        raise StageFailure(ExitCode.PREEMPTED, said)

    def stop(*_: object) -> None:
        # An exception would not always get through, as imports swallow them; what is on disk is whole at any moment.
        os._exit(run_stage(told_to_stop))

    signal.signal(signal.SIGTERM, stop)


_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def classify(error: BaseException) -> ExitCode:
    """Exit code for an exception that no stage expected."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return ExitCode.OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return ExitCode.STORAGE_FULL
    # safetensors and torch report a full disk as a RuntimeError with the errno's text
    if any(os.strerror(number) in str(error) for number in _STORAGE):
        return ExitCode.STORAGE_FULL
    return ExitCode.INTERNAL


_ADVICE = {
    ExitCode.OUT_OF_MEMORY: "Lower training.perDeviceBatchSize or tokenization.cutoffLen, set training.gradientCheckpointing "
    "to Enabled, or give resources.memory or a larger GPU.",
    ExitCode.STORAGE_FULL: "Give storage.size more room, or lower checkpoints.limit; a volume that has become read-only needs "
    "its node or disk looked at. What was saved before is whole.",
    ExitCode.INTERNAL: "This is a fault of the FineTune operator's images; please report it with the log.",
}


def _describe(error: BaseException, code: ExitCode) -> str:
    return f"{type(error).__name__}: {error}. {_ADVICE[code]}"


def _end(code: ExitCode, message: str, figures: Mapping[str, Figure], announce: bool) -> int:
    # Whatever a library or a server put into its error: a status is for more eyes than a Secret.
    message = redact_known_kinds(message)
    if announce:
        # Where nobody reads any more, the exit code must still be the stage's.
        with contextlib.suppress(OSError):
            print(f"error: {message}", file=sys.stderr, flush=True)
    _write(TerminationMessage(REASONS[code], message, figures))
    return code


def _write(message: TerminationMessage) -> None:
    path = Path(os.environ.get(TERMINATION_LOG_VARIABLE, DEFAULT_TERMINATION_LOG))
    # Outside a pod there is no termination log; the message is on stderr already.
    with contextlib.suppress(OSError):
        path.write_bytes(message.encode())
