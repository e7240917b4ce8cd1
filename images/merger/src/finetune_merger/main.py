"""``finetune-merger merge --run FILE``: fold the trained adapter into the base model and prove that it still answers the same."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from finetune_merger.quick_start import choose_imports
from finetune_merger.readahead import read_ahead
from finetune_operator.api.outcome import Figure, exit_on_sigterm, run_stage
from finetune_operator.api.run import load_run


def command() -> NoReturn:
    """The process: ends at once, as Python takes over a second to take apart what torch and transformers have made."""
    code = main(owns_process=True)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None, *, owns_process: bool = False) -> int:
    """Run the stage named on the command line; returns its exit code.

    ``owns_process``: nothing else runs here or will, so that what libraries may import can be chosen.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    exit_on_sigterm("the merge was told to stop; it goes on after the last file that it finished.")
    return run_stage(lambda: _merge(options.run, owns_process=owns_process))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="finetune-merger", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    merge = commands.add_parser("merge", help="fold the adapter into the base model")
    merge.add_argument("--run", type=Path, required=True, metavar="FILE", help="the job's run.json")
    return parser


def _merge(path: Path, *, owns_process: bool) -> Mapping[str, Figure]:
    run = load_run(path)
    if owns_process:
        choose_imports(run)
    read_ahead(run.paths.base_model)
    # torch takes seconds to import: a run.json that does not fit is reported before.
    from finetune_merger.stage import merge

    return merge(run)


if __name__ == "__main__":
    command()
