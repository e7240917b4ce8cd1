"""``finetune run``: prepare, train and merge as local processes."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_operator.api.run import RunConfig
from finetune_operator.cli import options
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.local.arguments import add_manifests, add_mounts, inputs_of
from finetune_operator.cli.local.folder import changes_refused, locked, write_folder
from finetune_operator.cli.local.inputs import Inputs, input_problems, job_claims, run_config
from finetune_operator.cli.local.process import run_child
from finetune_operator.cli.local.report import closing_lines, summary
from finetune_operator.cli.local.server import HOST, serve_command
from finetune_operator.cli.local.stages import Show, StageFailed, find_program, run_stage, stages_left
from finetune_operator.cli.manifest.jobs import ManifestJob, load_manifests

DEFAULT_WORKDIR = Path("finetune-runs")


def configure(parser: argparse.ArgumentParser) -> None:
    add_manifests(parser)
    parser.add_argument(
        "--workdir",
        type=Path,
        default=DEFAULT_WORKDIR,
        help="folder that gets one folder a job; default: ./finetune-runs",
    )
    add_mounts(parser)
    parser.add_argument(
        "--serve",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="then serve the last job's model until Ctrl-C; default: no, and `finetune chat DIR` starts it when needed",
    )
    parser.add_argument("--host", default=HOST, help="address that --serve listens on; default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="port that --serve listens on; default: %(default)s")
    options.add_output(parser)


def execute(arguments: argparse.Namespace) -> int:
    manifests = load_manifests(arguments.manifests)
    workdir = arguments.workdir.absolute()
    inputs = inputs_of(arguments, manifests, job_claims(manifests.jobs, workdir))
    configs = checked_configs(manifests.jobs, inputs, workdir)
    say = to_stderr if arguments.output == "json" else to_stdout
    if manifests.ignored:
        say(f"ignored, not needed without a cluster: {', '.join(manifests.ignored)}")
    outcomes: list[dict[str, Any]] = []
    try:
        run_jobs(configs, inputs, say, outcomes)
    finally:
        if arguments.output == "json":
            print(json.dumps(outcomes, indent=1), flush=True)
    return serve(configs[-1], arguments.host, arguments.port, say) if arguments.serve else 0


def checked_configs(jobs: Sequence[ManifestJob], inputs: Inputs, workdir: Path) -> list[RunConfig]:
    """run.json of every job. Raises CommandError with a line for everything, in any of them, that stands in the way."""
    problems: list[str] = []
    configs = [run_config(job, inputs, workdir / job.name) for job in jobs]
    for job, config in zip(jobs, configs, strict=True):
        problems += input_problems(job, config, inputs, workdir)
        problems += [f"{job.file}: {job.name}: {change}" for change in changes_refused(config)]
    if problems:
        raise CommandError("\n".join(problems))
    return configs


def run_jobs(configs: Sequence[RunConfig], inputs: Inputs, say: Show, outcomes: list[dict[str, Any]]) -> None:
    """Run job after job, adding what came of each; a job may read what an earlier one left. Raises StageFailed."""
    for config in configs:
        try:
            run_job(config, inputs, say)
            outcomes.append(summary(config))
        except StageFailed as failure:
            outcomes.append({**summary(config), "failed": failure.as_json()})
            raise


def run_job(config: RunConfig, inputs: Inputs, say: Show) -> None:
    """Run the stages of a job that are not done yet. Raises StageFailed."""
    with locked(Path(config.root)) as lock:
        write_folder(config, inputs)
        left = stages_left(config)
        if not left:
            say(f"{config.name}: finished before; nothing to do")
        for stage in left:
            find_program(stage.program)  # said now, not after hours of training
        for stage in left:
            started = time.monotonic()
            say(f"{config.name}: {stage.name}")
            run_stage(stage, config, say, lock)
            say(f"{config.name}: {stage.name} done in {time.monotonic() - started:.1f} s")
    for line in closing_lines(config):
        say(line)


def serve(config: RunConfig, host: str, port: int, say: Show) -> int:
    """Serve until told to stop; returns the server's exit code, or 0 where it was told."""
    command = serve_command(config, host, port)
    say(f"{config.name}: serving as model {config.name} on http://{host}:{port}/v1")
    ended = run_child(command, {}, lambda line: say(f"serve | {line}"))
    if ended.code and not ended.stopped_by:
        raise CommandError(f"{config.name}: serve: ended with exit code {ended.code}", ended.code)
    return 0


def to_stdout(line: str) -> None:
    print(line, flush=True)


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
