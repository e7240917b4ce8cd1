"""``finetune`` and ``kubectl finetune``: finds the command and turns its errors into lines on stderr."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from finetune_operator.cli.errors import CommandError

COMMANDS = {
    "convert": "turn LLaMA-Factory's YAML files into FineTuneJob manifests",
    "run": "run the stages of FineTuneJob manifests as local processes, without a cluster",
    "tokens": "print the tokens that FineTuneJob manifests would be trained on",
    "estimate": "predict the GPU memory that FineTuneJob manifests would take, and whether it fits",
    "status": "show FineTuneJobs and how far they are",
    "logs": "print the log of a job's stage",
    "wait": "wait until a job has reached a condition",
    "plot": "draw the training loss",
    "chat": "talk to the tuned model",
    "suspend": "stop a job's pods; it keeps its checkpoints",
    "resume": "let a suspended job go on from its last checkpoint",
}
CLUSTER_LIBRARIES = ("kubernetes", "urllib3")
INTERRUPTED = 130  # what shells report for a program ended by SIGINT
BROKEN_PIPE = 141  # and by SIGPIPE, as in `finetune logs NAME | head`


class Command(Protocol):
    """What every module in ``commands`` offers."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def execute(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit code. Raises CommandError."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # Importing every command costs a second; only the one that is asked for declares its arguments.
        parsed = build_parser(words[:1]).parse_args(words)
        return load(parsed.command).execute(parsed)
    except CommandError as error:
        for line in error.message.splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it flushes stdout on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except ModuleNotFoundError as error:
        if error.name not in CLUSTER_LIBRARIES:
            raise
        print(f"error: {error.name} is not installed; pip install 'finetune-operator[cli]'", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        return 1


def build_parser(commands: Sequence[str]) -> argparse.ArgumentParser:
    """A parser that knows the arguments of the named commands, and of the others their names."""
    parser = argparse.ArgumentParser(prog=program_name(), description="Fine-tune, merge and serve chat models.")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name in commands:
            load(name).configure(subparser)
    return parser


def load(name: str) -> Command:
    """The module of a command."""
    return cast(Command, importlib.import_module(f"finetune_operator.cli.commands.{name}"))


def program_name() -> str:
    """What the user typed: kubectl finds ``kubectl-finetune`` as its plugin ``finetune``."""
    return "kubectl finetune" if Path(sys.argv[0]).name.startswith("kubectl-") else "finetune"
