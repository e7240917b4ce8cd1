"""``finetune estimate``: the GPU memory that a job would take, from the trainer's own code, without a GPU."""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from finetune_operator.api.base import QUANTITY_PATTERN
from finetune_operator.cli.commands.run import add_folders
from finetune_operator.cli.commands.tokens import PROGRAM, checked_configs, ends_on_sigterm, show, write_runs
from finetune_operator.cli.local.inputs import Inputs
from finetune_operator.cli.local.stages import find_program
from finetune_operator.cli.manifest.jobs import load_manifests
from finetune_operator.cli.options import add_output


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "manifests", nargs="+", metavar="MANIFEST", help="YAML file with FineTuneJobs; - is standard input"
    )
    parser.add_argument(
        "--gpu-memory",
        type=quantity,
        metavar="SIZE",
        help="memory of one GPU, such as 80Gi; default: resources.gpuMemory",
    )
    add_folders(parser, "--claim", "folder that stands for a claim of a pvc:// source")
    add_folders(parser, "--config-map", "folder that stands for a ConfigMap of a configmap:// source")
    add_folders(parser, "--secret", "folder that stands for a Secret, one file a key")
    add_output(parser)


def execute(arguments: argparse.Namespace) -> int:
    manifests = load_manifests(arguments.manifests)
    inputs = Inputs(
        claims=dict(arguments.claim),
        config_maps=dict(arguments.config_map),
        secrets=dict(arguments.secret),
        config_map_documents=manifests.config_maps,
    )
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
