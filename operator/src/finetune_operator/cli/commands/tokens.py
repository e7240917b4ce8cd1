"""``finetune tokens``: the very tokens that a job would be trained on, from the trainer's own code."""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune_operator.api.result import write_whole
from finetune_operator.api.run import RunConfig
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.local.arguments import add_manifests, add_mounts, inputs_of
from finetune_operator.cli.local.folder import write_inputs
from finetune_operator.cli.local.inputs import Inputs, reading_problems, run_config
from finetune_operator.cli.local.process import environment_with
from finetune_operator.cli.local.stages import find_program
from finetune_operator.cli.manifest.jobs import ManifestJob, load_manifests

PROGRAM = "finetune-trainer"
QUIET_ENDINGS = (signal.SIGINT, signal.SIGPIPE)
"""Signals of a user who has seen enough."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_manifests(parser)
    parser.add_argument(
        "--packed", action="store_true", help="a line a sequence, as the job packs them; default: a line a row"
    )
    parser.add_argument(
        "--render", action="store_true", help="show the text; what is learnt is green, or between « and » in a file"
    )
    parser.add_argument("--evaluation", action="store_true", help="print the rows that are held back as well")
    add_mounts(parser)


def execute(arguments: argparse.Namespace) -> int:
    manifests = load_manifests(arguments.manifests)
    inputs = inputs_of(arguments, manifests)
    program = find_program(PROGRAM)
    flags = [f"--{flag}" for flag in ("packed", "render", "evaluation") if getattr(arguments, flag)]
    with ends_on_sigterm(), tempfile.TemporaryDirectory(prefix="finetune-tokens-") as folder:
        root = Path(folder).resolve()
        files = write_runs(checked_configs(manifests.jobs, inputs, root), inputs, root)
        return show([program, "tokens", *flags], files, root)


@contextlib.contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """Clean up on SIGTERM: its default action would leave the folder and the trainer behind."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def checked_configs(jobs: Sequence[ManifestJob], inputs: Inputs, root: Path, reads: str = "spec.") -> list[RunConfig]:
    """run.json of every job, all with one root, so that what a hub gives is fetched once.

    ``reads`` is what the names of the fields begin with that have to be there. Raises CommandError.
    """
    configs = [run_config(job, inputs, root) for job in jobs]
    problems = [
        problem
        for job, config in zip(jobs, configs, strict=True)
        for problem in reading_problems(job, config, inputs, root)
        if f": {reads}" in problem
    ]
    if problems:
        raise CommandError("\n".join(problems))
    return configs


def write_runs(configs: Sequence[RunConfig], inputs: Inputs, root: Path) -> list[Path]:
    """Write the run.json files, ``<job>.json`` each, and what they point to."""
    folder = root / "runs"
    folder.mkdir()
    files = []
    for config in configs:
        write_inputs(config, inputs)
        files.append(folder / f"{config.name}.json")
        write_whole(files[-1], config.dump().encode())
    return files


def show(command: Sequence[str], files: Sequence[Path], root: Path) -> int:
    """Let one trainer's command print all of them, straight to this process's output; returns its exit code."""
    runs = [word for file in files for word in ("--run", str(file))]
    sys.stdout.flush()
    ended = subprocess.run(
        [*command, *runs],
        # However the trainer ends, what it leaves goes with our folder.
        env=environment_with({"TMPDIR": str(root)}),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if ended.returncode >= 0:
        return ended.returncode
    killed_by = signal.Signals(-ended.returncode)
    if killed_by in QUIET_ENDINGS:
        return 128 + killed_by
    raise CommandError(f"{PROGRAM} {command[1]}: killed by {killed_by.name}", 128 + killed_by)
