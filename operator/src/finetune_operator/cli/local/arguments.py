"""What the commands without a cluster are given: manifests, and folders that stand for what a cluster would mount."""

from __future__ import annotations

import argparse
from pathlib import Path

from finetune_operator.cli import options
from finetune_operator.cli.local.inputs import Inputs
from finetune_operator.cli.manifest.jobs import Manifests


def add_manifests(parser: argparse.ArgumentParser) -> None:
    """The files with the jobs."""
    parser.add_argument(
        "manifests", nargs="+", metavar="MANIFEST", help="YAML file with FineTuneJobs; - is standard input"
    )


def add_mounts(parser: argparse.ArgumentParser) -> None:
    """The folders that stand for mounts, NAME=DIR each."""
    _add_folders(parser, "--claim", "folder that stands for a claim of a pvc:// source")
    _add_folders(parser, "--config-map", "folder that stands for a ConfigMap of a configmap:// source")
    _add_folders(parser, "--secret", "folder that stands for a Secret, one file a key")


def _add_folders(parser: argparse.ArgumentParser, flag: str, text: str) -> None:
    parser.add_argument(flag, type=options.named_folder, action="append", default=[], metavar="NAME=DIR", help=text)


def inputs_of(arguments: argparse.Namespace, manifests: Manifests, job_claims: dict[str, Path] | None = None) -> Inputs:
    """The mounts that were given; ``job_claims`` are those of the jobs themselves, which the flags go before."""
    return Inputs(
        claims={**(job_claims or {}), **dict(arguments.claim)},
        config_maps=dict(arguments.config_map),
        secrets=dict(arguments.secret),
        config_map_documents=manifests.config_maps,
    )
