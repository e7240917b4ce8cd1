"""``finetune-server serve|probe --run FILE``: keep the tuned model answering, and ask it whether it does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_operator.api.outcome import Figure, run_stage
from finetune_operator.api.run import load_run
from finetune_server.probe import PORT, probe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named on the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "probe":
        return probe(options.run, options.timeout)
    listen = {name: value for name in ("host", "port") if (value := getattr(options, name)) is not None}
    return run_stage(lambda: _serve(options.run, **listen))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="finetune-server", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve the tuned model until told to stop")
    check = commands.add_parser("probe", help="ask the running server for one token; exit 0 where it answers")
    for command in (serve, check):
        command.add_argument("--run", type=Path, required=True, metavar="FILE", help="the job's run.json")
    serve.add_argument("--host", help="address to listen on; default: every one of the pod's")
    serve.add_argument("--port", type=int, help=f"port to listen on; default: {PORT}")
    check.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="how long an answer may take")
    return parser


def _serve(path: Path, **listen: Any) -> Mapping[str, Figure]:
    # The probe runs every few seconds: it must not pay for what serving imports.
    from finetune_server.serve import serve

    serve(load_run(path), **listen)
    return {}


if __name__ == "__main__":
    sys.exit(main())
