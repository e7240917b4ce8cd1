"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Which cluster and namespace, as kubectl spells it."""
    parser.add_argument("-n", "--namespace", help="namespace of the job; default: the kubeconfig context's")
    parser.add_argument(
        "--kubeconfig", help="kubeconfig file; default: $KUBECONFIG, then ~/.kube/config, then in-cluster"
    )
    parser.add_argument("--context", help="context of the kubeconfig; default: its current one")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Output for programs."""
    parser.add_argument("-o", "--output", choices=["json"], help="print JSON to stdout; everything else goes to stderr")


def named_folder(text: str) -> tuple[str, Path]:
    """NAME=DIR. The folder may be made later, by an earlier job of the same call."""
    name, separator, folder = text.partition("=")
    if not (name and separator and folder):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected NAME=DIR")
    return name, Path(folder).expanduser().absolute()
