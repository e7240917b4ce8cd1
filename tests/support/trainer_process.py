"""The trainer's stages as processes, the way a pod starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_operator.api.outcome import TERMINATION_LOG_VARIABLE, TerminationMessage
from finetune_operator.api.run import RunConfig
from support_wait import eventually
from trainer_runs import write_run


@dataclass
class Ended:
    """How a stage's process ended."""

    code: int
    message: TerminationMessage | None
    output: str


class StageProcess:
    """One stage of a job, running."""

    def __init__(self, run: RunConfig, stage: str, **environment: str) -> None:
        folder = Path(run.root).parent
        self.log = folder / f"{run.name}-{stage}.out"
        self._words = folder / f"{run.name}-{stage}.termination"
        self._words.unlink(missing_ok=True)
        variables = {**os.environ, "OMP_NUM_THREADS": "1", TERMINATION_LOG_VARIABLE: str(self._words), **environment}
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "finetune_trainer.main", stage, "--run", str(write_run(run, folder))],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
            )

    def wait_for(self, text: str, seconds: float = 240) -> None:
        """Until the process has printed the text."""
        eventually(
            lambda: text in self.log.read_text() or self.process.poll() is not None, seconds, f"{text!r} in {self.log}"
        )
        assert text in self.log.read_text(), self.log.read_text()

    def end(self, seconds: float = 240) -> Ended:
        """Wait for the end of the process."""
        code = self.process.wait(seconds)
        words = self._words.read_text() if self._words.exists() else ""
        return Ended(code, TerminationMessage.decode(words), self.log.read_text())


def run_stages(run: RunConfig, *stages: str, **environment: str) -> Ended:
    """Run stages one after the other; the last one's end. The earlier ones have to succeed."""
    for stage in stages[:-1]:
        ended = StageProcess(run, stage, **environment).end()
        assert ended.code == 0, ended.output
    return StageProcess(run, stages[-1], **environment).end()


def trainer_log(run: RunConfig) -> list[dict[str, Any]]:
    """Lines of trainer_log.jsonl."""
    return [json.loads(line) for line in run.paths.trainer_log.read_text().splitlines()]


def losses(run: RunConfig) -> dict[int, float]:
    """Logged training loss by step; a step that is logged twice is a fault."""
    lines = [line for line in trainer_log(run) if "loss" in line]
    by_step = {line["current_steps"]: line["loss"] for line in lines}
    assert len(by_step) == len(lines)
    return by_step
