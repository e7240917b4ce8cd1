"""``finetune suspend``: no pods, until ``finetune resume``."""

from __future__ import annotations

import argparse

from finetune_operator.cli import options
from finetune_operator.cli.cluster import Cluster


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the FineTuneJob")
    options.add_cluster(parser)


def execute(arguments: argparse.Namespace) -> int:
    set_suspend(arguments, True)
    print(f"{arguments.name}: suspended; `finetune resume {arguments.name}` goes on from the last checkpoint")
    return 0


def set_suspend(arguments: argparse.Namespace, value: bool) -> None:
    """Set spec.suspend, touching nothing else. Raises CommandError."""
    Cluster.of(arguments).patch_job(arguments.name, {"spec": {"suspend": value}})
