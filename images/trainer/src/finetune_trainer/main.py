"""Command line of the trainer image: ``finetune-trainer prepare|train --run FILE``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from finetune_operator.api.outcome import Figure, exit_on_sigterm, run_stage
from finetune_operator.api.run import load_run


def main(arguments: list[str] | None = None) -> int:
    """Run one stage and return its exit code."""
    parser = argparse.ArgumentParser(prog="finetune-trainer", description="Stages of a FineTuneJob.")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for stage, text in (
        ("prepare", "fetch the base model, check every row, tokenise"),
        ("train", "train, resuming from the newest valid checkpoint"),
    ):
        stages.add_parser(stage, help=text).add_argument("--run", type=Path, required=True, help="path of run.json")
    options = parser.parse_args(arguments)
    exit_on_sigterm(f"{options.stage} was told to stop; started again, it goes on from what is on the volume.")
    return run_stage(lambda: _run(options.stage, options.run))


def _run(stage: str, run_file: Path) -> Mapping[str, Figure]:
    # Imported late: a stage must not pay for the other one's libraries.
    run = load_run(run_file)
    if stage == "prepare":
        from finetune_trainer.prepare.stage import prepare

        return prepare(run)
    from finetune_trainer.train.stage import train

    return train(run, run_file)


if __name__ == "__main__":
    sys.exit(main())
