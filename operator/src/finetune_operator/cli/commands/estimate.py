"""``finetune estimate``: the GPU memory that a job would take, from the trainer's own code, without a GPU."""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from finetune_operator.api.base import QUANTITY_PATTERN
from finetune_operator.cli.commands.tokens import PROGRAM, checked_configs, ends_on_sigterm, show, write_runs
from finetune_operator.cli.local.arguments import add_manifests, add_mounts, inputs_of
from finetune_operator.cli.local.stages import find_program
from finetune_operator.cli.manifest.jobs import load_manifests
from finetune_operator.cli.options import add_output


def configure(parser: argparse.ArgumentParser) -> None:
    add_manifests(parser)
    parser.add_argument(
        "--gpu-memory",
        type=quantity,
        metavar="SIZE",
        help="memory of one GPU, such as 80Gi; default: resources.gpuMemory",
    )
    add_mounts(parser)
    add_output(parser)


def execute(arguments: argparse.Namespace) -> int:
    manifests = load_manifests(arguments.manifests)
    inputs = inputs_of(arguments, manifests)
    program = find_program(PROGRAM)
    flags = ["--json"] if arguments.output == "json" else []
    with ends_on_sigterm(), tempfile.TemporaryDirectory(prefix="finetune-estimate-") as folder:
        root = Path(folder).resolve()
        configs = checked_configs(manifests.jobs, inputs, root, reads="spec.model")
        if arguments.gpu_memory:
            configs = [config.model_copy(update={"gpu_memory": arguments.gpu_memory}) for config in configs]
        return show([program, "estimate", *flags], write_runs(configs, inputs, root), root)


def quantity(text: str) -> str:
    """A size as Kubernetes writes it."""
    if not re.fullmatch(QUANTITY_PATTERN, text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a size such as 80Gi")
    return text
