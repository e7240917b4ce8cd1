"""trainer_log.jsonl: appended to while training, cut back to the resumed step first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune_operator.api.result import write_whole
from finetune_trainer.train.entry import Entry


def read_log(path: Path) -> list[dict[str, Any]]:
    """The log's lines; one that a killed process left half written is skipped."""
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


class TrainerLog:
    """Appends one JSON line a logged step."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, step: int) -> None:
        """Keep the lines up to ``step``, the one that training goes on from: what came after is done again.

        So is the last line of a finished training, the one without a loss.
        """
        told = [line for line in read_log(self._path) if line.keys() & {"loss", "eval_loss"}] if step else []
        kept = [line for line in told if line.get("current_steps", 0) <= step]
        write_whole(self._path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def append(self, entry: Entry) -> None:
        """Add a line, or on a full disk nothing: a line that is cut off would be no JSON."""
        rest = memoryview((json.dumps(entry.to_log()) + "\n").encode())
        with self._path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(end)
                raise
