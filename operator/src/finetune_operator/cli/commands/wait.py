"""``finetune wait``: until a condition holds, or never can."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys

from finetune_operator.api import conditions
from finetune_operator.api.status import Condition
from finetune_operator.cli import options
from finetune_operator.cli.cluster import Cluster
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.shown_job import ShownJob

TIMED_OUT = 3
TARGETS = (
    conditions.COMPLETE,
    conditions.PREPARED,
    conditions.TRAINED,
    conditions.MERGED,
    conditions.SERVED,
    conditions.READY,
    conditions.SUSPENDED,
    conditions.FAILED,
)
_SECONDS = {"h": 3600, "m": 60, "s": 1}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the FineTuneJob")
    parser.add_argument(
        "--for",
        dest="target",
        type=target,
        default=conditions.COMPLETE,
        metavar="CONDITION",
        help=f"one of {', '.join(TARGETS)}; default: %(default)s",
    )
    parser.add_argument(
        "--timeout", type=seconds, default=math.inf, help="such as 90s, 30m or 1h30m; default: as long as it takes"
    )
    options.add_cluster(parser)
    options.add_output(parser)


def target(text: str) -> str:
    """A condition, however it is capitalised."""
    found = {name.lower(): name for name in TARGETS}.get(text.lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected one of {', '.join(TARGETS)}")
    return found


def seconds(text: str) -> float:
    """A duration such as 1h30m; a bare number is seconds."""
    if not re.fullmatch(r"[0-9]+|(?=.)([0-9]+h)?([0-9]+m)?([0-9]+s)?", text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a duration such as 90s, 30m or 1h30m")
    parts = re.findall(r"([0-9]+)([hms]?)", text)
    return float(sum(int(number) * _SECONDS[unit or "s"] for number, unit in parts))


def execute(arguments: argparse.Namespace) -> int:
    cluster = Cluster.of(arguments)
    shown = ""
    job = None
    for manifest in cluster.job_changes(arguments.name, arguments.timeout):
        job = ShownJob.of(manifest)
        shown = show_stage(job, shown)
        condition = job.condition(arguments.target)
        if condition and job.holds(arguments.target):
            show_reached(job, condition, arguments)
            return 0
        check_possible(job, arguments.target)
    stage = job.stage if job else conditions.PENDING
    raise CommandError(
        f"{arguments.name}: not {arguments.target} in time, still {stage}; "
        f"`finetune status {arguments.name}` says more",
        TIMED_OUT,
    )


def show_stage(job: ShownJob, shown: str) -> str:
    """Tell a new stage on stderr; returns what was told last."""
    ready = job.condition(conditions.READY)
    line = f"{job.name}: {job.stage}" + (f": {ready.message}" if ready and ready.message else "")
    if line != shown:
        print(line, file=sys.stderr, flush=True)
    return line


def check_possible(job: ShownJob, wanted: str) -> None:
    """Raises CommandError where the condition cannot be reached any more."""
    failed = job.condition(conditions.FAILED)
    if failed and job.holds(conditions.FAILED):
        raise CommandError(f"{job.name}: failed: {failed.reason}: {failed.message}")
    condition = job.condition(wanted)
    if condition and condition.reason == conditions.NOT_REQUESTED:
        raise CommandError(f"{job.name}: will never be {wanted}: the spec does not ask for it")
    if wanted == conditions.FAILED and job.holds(conditions.COMPLETE):
        raise CommandError(f"{job.name}: will never be {wanted}: it is complete")


def show_reached(job: ShownJob, condition: Condition, arguments: argparse.Namespace) -> None:
    """Print the condition."""
    if arguments.output == "json":
        value = {"name": job.name, "namespace": job.namespace, "condition": condition.to_manifest()}
        print(json.dumps(value, indent=1))
    else:
        print(f"{job.name}: {condition.type}" + (f": {condition.message}" if condition.message else ""))
