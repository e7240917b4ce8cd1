"""Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import wandb

from finetune_operator.api.run import RunConfig
from finetune_operator.api.tracking import WeightsAndBiases
from finetune_trainer.tracking.tracker import Line, Outcome, grouped_figures, settings

SECONDS_TO_OPEN = 30.0
FOLDER = "wandb"
"""Folder in the job's folder with the client's own files, from which `wandb sync` can send what could not be sent."""


class WeightsAndBiasesRun:
    """The run whose id is the job's UID."""

    def __init__(self, run: RunConfig, wanted: WeightsAndBiases) -> None:
        self._job = run
        self._wanted = wanted
        self._run: Any = None

    def open(self) -> str:
        """Open the run; the server tells which step comes next."""
        # What an attempt that timed out has left running.
        wandb.teardown()
        self._job.paths.root.joinpath(FOLDER).mkdir(exist_ok=True)
        self._run = wandb.init(
            id=self._job.uid,
            resume="allow",
            name=self._job.name,
            project=self._wanted.project,
            entity=self._wanted.entity,
            dir=str(self._job.paths.root),
            config=settings(self._job),
            settings=wandb.Settings(
                init_timeout=SECONDS_TO_OPEN,
                login_timeout=SECONDS_TO_OPEN,
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                # Of the training, not of this process.
                x_stats_pid=os.getppid(),
            ),
        )
        return str(self._run.url or "")

    def report(self, lines: Sequence[Line]) -> None:
        """Hand over the lines; figures of one step become one row."""
        for line in lines:
            figures, step = grouped_figures(line), line["current_steps"]
            # An earlier attempt has told those before; they were trained again to the same values.
            if figures and step >= self._run.starting_step:
                self._run.log(figures, step=step)

    def close(self, outcome: Outcome) -> None:
        """Wait until the server has everything. A job that was stopped is shown as pre-empted, and goes on later."""
        if self._run is None:
            return
        if outcome is Outcome.STOPPED:
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if outcome is Outcome.FINISHED else 1)
