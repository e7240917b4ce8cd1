"""Everything that is wrong with a job, gathered and told at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finetune_operator.api.outcome import MESSAGE_LIMIT, ExitCode, Figure, StageFailure
from finetune_operator.api.redact import redact_known_kinds
from finetune_operator.api.result import write_whole

_ROOM = MESSAGE_LIMIT - 256
"""Bytes of JSON that the message may take: the termination message has a reason and figures as well."""
_LONGEST_LINE = 400


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: field or file:line, what was found, what was expected, what to do. May have several lines."""

    code: ExitCode
    text: str


class Problems:
    """Gathers problems until everything was looked at."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._figures: dict[str, Figure] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep a StageFailure of the block instead of letting it end the stage."""
        try:
            yield
        except StageFailure as failure:
            self.keep(failure)

    def keep(self, failure: StageFailure) -> None:
        """Add what a StageFailure says, unless it was said before."""
        problem = Problem(failure.code, redact_known_kinds(failure.message))
        if problem not in self._found:
            self._found.append(problem)
        self._figures |= failure.figures

    def refuse(self, report: Path | None) -> None:
        """Raise StageFailure with all of them, if there are any; ``report`` and the log get what a message has no room for.

        The exit code is that of the first kind: what the spec asks for, then data, model, source. Without a report
        the message has all of it.
        """
        if not self._found:
            return
        code = min(problem.code for problem in self._found)
        whole = "\n".join(problem.text for problem in self._found)
        if report is None:
            raise StageFailure(code, whole, **self._figures)
        told = fitting([problem.text for problem in self._found])
        report.parent.mkdir(parents=True, exist_ok=True)
        write_whole(report, json.dumps(self._as_report(), indent=1, ensure_ascii=False).encode())
        if told != whole:
            print(f"prepare: everything that is wrong:\n{whole}", flush=True)
        raise StageFailure(code, told, **self._figures)

    def _as_report(self) -> dict[str, object]:
        return {
            "problems": [
                {"exitCode": int(problem.code), "message": line.strip()}
                for problem in self._found
                for line in problem.text.splitlines()
            ]
        }


def fitting(texts: Iterable[str]) -> str:
    """The texts as one message that a pod's termination message has room for. What has to go is counted at the end."""
    blocks = [[_shortened(line) for line in text.splitlines()] for text in texts]
    left_out = 0
    while _size(message := _joined(blocks, left_out)) > _ROOM:
        longest = max(blocks, key=lambda lines: sum(map(len, lines)))
        # The last line may say how many more there are.
        longest.pop(-2 if len(longest) > 1 else -1)
        left_out += 1
    return message


def _joined(blocks: list[list[str]], left_out: int) -> str:
    lines = [line for block in blocks for line in block]
    if left_out:
        lines.append(f"and {left_out} more, which the log of prepare and report.json list")
    return "\n".join(lines)


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 1]}…"


def _size(message: str) -> int:
    return len(json.dumps(message, ensure_ascii=False).encode())
