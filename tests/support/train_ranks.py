"""One of several processes that train jobs together, one job after the other: importing torch for each would take longest.

argv: tokens of a pass, then run.json files. `FILE@STEP` goes on from that step of the job before, as if it had been killed.
Prepared they are already, except for those with a step.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from torch import distributed

from finetune_operator.api.run import RunConfig, load_run
from finetune_trainer.train.stage import train


def main(tokens: str, *jobs: str) -> None:
    """Train the jobs on the CPU."""
    from finetune_trainer.train import fused

    # Passes of tiny rows that are as many as those of long ones.
    fused._CPU_TOKENS = int(tokens)
    before: RunConfig | None = None
    for job in jobs:
        file, _, step = job.partition("@")
        run = load_run(Path(file))
        if step and before is not None and distributed.get_rank() == 0:
            _go_back(before, run, int(step))
        if distributed.is_initialized():
            distributed.barrier()
        train(run, Path(file))
        before = run


def _go_back(before: RunConfig, run: RunConfig, step: int) -> None:
    shutil.copytree(before.root, run.root)
    run.paths.result.unlink()
    shutil.rmtree(run.paths.adapter)
    for checkpoint in run.paths.checkpoints.glob("checkpoint-*"):
        if int(checkpoint.name.partition("-")[2]) > step:
            shutil.rmtree(checkpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])
