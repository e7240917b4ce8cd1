"""TensorBoard: event files on the job's volume."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.event_file_writer import EventFileWriter  # type: ignore[import-untyped]

from finetune_operator.api.run import RunConfig
from finetune_trainer.tracking.tracker import Line, Outcome, grouped_figures, seconds


class EventFiles:
    """One event file with everything that the log holds, written anew by each attempt.

    A pod that was killed may have shown steps that are now trained again, and may not have shown the last ones before the
    checkpoint. The new file says both whole, and opens with the mark on which TensorBoard forgets what it has shown.
    """

    def __init__(self, run: RunConfig) -> None:
        self._folder: Path = run.paths.tensorboard
        self._writer: Any = None

    def open(self) -> str:
        """Begin the file, and remove those of earlier attempts."""
        self._folder.mkdir(parents=True, exist_ok=True)
        earlier = list(self._folder.glob("events.out.tfevents.*"))
        self._writer = EventFileWriter(str(self._folder))
        forget = Event(wall_time=time.time(), step=0, session_log=SessionLog(status=SessionLog.START))
        self._writer.add_event(forget)
        self._writer.flush()
        for path in earlier:
            path.unlink()
        return str(self._folder)

    def report(self, lines: Sequence[Line]) -> None:
        """Write the lines, each at the time when it was logged."""
        for line in lines:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in grouped_figures(line).items()]
            if values:
                summary = Summary(value=values)
                self._writer.add_event(Event(wall_time=seconds(line), step=line["current_steps"], summary=summary))
        self._writer.flush()

    def close(self, outcome: Outcome) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
