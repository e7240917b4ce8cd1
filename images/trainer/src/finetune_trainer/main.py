"""Command line of the trainer image: ``finetune-trainer prepare|train --run FILE``, ``tokens`` and ``estimate`` to look ahead."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from finetune_operator.api.outcome import Figure, exit_on_sigterm, run_stage
from finetune_operator.api.run import load_run
from finetune_trainer.train.rank import is_only_rank


def main(arguments: list[str] | None = None) -> int:
    """Run one stage and return its exit code."""
    parser = argparse.ArgumentParser(prog="finetune-trainer", description="Stages of a FineTuneJob.")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for stage, text in (
        ("prepare", "fetch the base model, check every row, tokenise"),
        ("train", "train, resuming from the newest valid checkpoint"),
    ):
        stages.add_parser(stage, help=text).add_argument("--run", type=Path, required=True, help="path of run.json")
    _add_tokens(stages.add_parser("tokens", help="print what the trainer would see, and leave nothing behind"))
    _add_estimate(stages.add_parser("estimate", help="print what GPU memory training would take"))
    options = parser.parse_args(arguments)
    if options.stage == "tokens":
        return _tokens(options)
    if options.stage == "estimate":
        return _estimate(options)
    exit_on_sigterm(f"{options.stage} was told to stop; started again, it goes on from what is on the volume.")
    # The launcher repeats what the one process that it started has to say.
    return run_stage(lambda: _run(options.stage, options.run), announce=not is_only_rank())


def _add_tokens(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run", type=Path, action="append", required=True, help="run.json of a job, named JOB.json; may be repeated"
    )
    parser.add_argument("--packed", action="store_true", help="a line a sequence, as the job packs them")
    parser.add_argument("--render", action="store_true", help="text instead of JSON; what is learnt is marked")
    parser.add_argument("--evaluation", action="store_true", help="the rows held back as well")


def _add_estimate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run", type=Path, action="append", required=True, help="run.json of a job, named JOB.json; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line instead of text")


def _estimate(options: argparse.Namespace) -> int:
    for number in (signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    from finetune_trainer.estimate.command import show_estimates

    return show_estimates(options.run, as_json=options.json)


def _tokens(options: argparse.Namespace) -> int:
    # Ended by whoever reads (`| head`) or by Ctrl-C, it has nothing to say.
    for number in (signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    from finetune_trainer.tokens import View, show_tokens

    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return show_tokens(options.run, View(options.packed, options.render, options.evaluation, coloured))


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
