"""``finetune status``: a table of all jobs, or everything about one."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_operator.cli import options
from finetune_operator.cli.cluster import Cluster
from finetune_operator.cli.describe import describe
from finetune_operator.cli.local.folder import is_run_folder, load_config
from finetune_operator.cli.local.progress import overview, overview_lines
from finetune_operator.cli.shown_job import ShownJob
from finetune_operator.cli.table import since, table

HEADER = ("NAME", "METHOD", "MODEL", "STATUS", "PROGRESS", "STEP", "LOSS", "ETA", "URL", "AGE")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME|DIR", help="a FineTuneJob, or the folder of a local run; default: all jobs"
    )
    options.add_cluster(parser)
    options.add_output(parser)


def execute(arguments: argparse.Namespace) -> int:
    if arguments.name and is_run_folder(Path(arguments.name)):
        config = load_config(Path(arguments.name))
        show(overview(config), overview_lines(config), arguments)
        return 0
    cluster = Cluster.of(arguments)
    now = dt.datetime.now(dt.UTC)
    if arguments.name:
        job = cluster.job(arguments.name)
        show(job, describe(ShownJob.of(job), now), arguments)
        return 0
    jobs = cluster.jobs()
    if not jobs and arguments.output != "json":
        print(f"No FineTuneJobs in namespace {cluster.namespace}.", file=sys.stderr)
        return 0
    rows = [row(ShownJob.of(job), now) for job in jobs]
    show({"kind": "FineTuneJobList", "items": jobs}, table(HEADER, rows), arguments)
    return 0


def show(value: dict[str, Any], lines: Iterator[str], arguments: argparse.Namespace) -> None:
    """Print the one or the other, as asked."""
    if arguments.output == "json":
        print(json.dumps(value, indent=1))
        return
    for line in lines:
        print(line)


def row(job: ShownJob, now: dt.datetime) -> tuple[str, ...]:
    """One line of the table, with kubectl's columns."""
    progress = job.status.progress
    serving = job.status.serving
    return (
        job.name,
        job.method,
        job.model,
        job.stage,
        (progress.percent if progress else "") or "",
        (progress.summary if progress else "") or "",
        (progress.loss if progress else "") or "",
        (progress.eta if progress else "") or "",
        (serving.url if serving else "") or "",
        since(job.created, now),
    )
