"""``finetune convert``: LLaMA-Factory's YAML files as FineTuneJob manifests."""

from __future__ import annotations

import argparse
import json
import os
import sys

from finetune_operator.api.manifest_yaml import dump_all
from finetune_operator.api.outcome import ExitCode
from finetune_operator.api.source import Scheme
from finetune_operator.cli import options
from finetune_operator.cli.convert.convert import convert
from finetune_operator.cli.convert.options import MLFLOW_EXPERIMENT, WANDB_PROJECT, Options, is_yes
from finetune_operator.cli.errors import CommandError

HUBS = {"huggingface": Scheme.HUGGING_FACE, "modelscope": Scheme.MODELSCOPE}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="CONFIG.yaml",
        help="LLaMA-Factory file to train, export or chat; - is standard input",
    )
    parser.add_argument(
        "--dataset-dir", metavar="DIR", help="folder with dataset_info.json; default: each file's dataset_dir"
    )
    parser.add_argument(
        "--hub",
        choices=HUBS,
        help="hub of models without a folder; default: modelscope with USE_MODELSCOPE_HUB=1, else huggingface",
    )
    parser.add_argument(
        "--placeholder",
        type=placeholder,
        action="append",
        default=[],
        metavar="KEY=TEXT",
        help="text for {{KEY}} in rows, such as name and author of the identity rows",
    )
    parser.add_argument("--gpus", type=int, help="GPUs for each node; default: $NPROC_PER_NODE, else 1")
    parser.add_argument("--nodes", type=int, help="nodes that train together; default: $NNODES, else 1")
    parser.add_argument("-q", "--quiet", action="store_true", help="leave out the notes on stderr")
    options.add_output(parser)


def placeholder(text: str) -> tuple[str, str]:
    """KEY=TEXT."""
    key, separator, value = text.partition("=")
    if not (key.isidentifier() and separator):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected KEY=TEXT")
    return key, value


def execute(arguments: argparse.Namespace) -> int:
    converted = convert(arguments.files, convert_options(arguments))
    problems = converted.problems
    if not (problems or converted.manifests):
        problems = [f"{', '.join(arguments.files)}: found no training file, expected at least one"]
    if problems:
        raise CommandError("\n".join(problems), ExitCode.INVALID_SPEC)
    for note in () if arguments.quiet else converted.notes:
        print(f"note: {note}", file=sys.stderr)
    if arguments.output == "json":
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": converted.manifests}, indent=1))
    else:
        print(dump_all(converted.manifests), end="")
    return 0


def convert_options(arguments: argparse.Namespace) -> Options:
    """What the arguments say, and the variables that LLaMA-Factory's users set. Raises CommandError."""
    is_modelscope = is_yes(os.environ.get("USE_MODELSCOPE_HUB"))
    return Options(
        dataset_dir=arguments.dataset_dir,
        hub=HUBS[arguments.hub or ("modelscope" if is_modelscope else "huggingface")],
        placeholders=dict(arguments.placeholder),
        gpus=arguments.gpus if arguments.gpus is not None else _number("NPROC_PER_NODE"),
        nodes=arguments.nodes or _number("NNODES") or 1,
        wandb_project=os.environ.get("WANDB_PROJECT", WANDB_PROJECT),
        mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI"),
        mlflow_experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME", MLFLOW_EXPERIMENT),
    )


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    raise CommandError(
        f"{variable}: found {text}, expected a whole number; correct the variable", ExitCode.INVALID_SPEC
    )
