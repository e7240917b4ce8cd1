"""The command `finetune-operator`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import NoReturn

import yaml
from kubernetes.aio.config import ConfigException
from pydantic import ValidationError

from finetune_operator.api.outcome import ExitCode
from finetune_operator.settings import Settings
from finetune_operator.shell import check, log
from finetune_operator.shell.assembly import Addresses, Operator
from finetune_operator.shell.errors import wrong_fields


def main(arguments: list[str] | None = None) -> None:
    """Run a command; `run` exits 64 where the settings or the credentials are wrong, `check` 1 where no operator is ready."""
    options = _parser().parse_args(arguments)
    options.command(options)


def _check(options: argparse.Namespace) -> None:
    problem = check.problem(options.url)
    if problem:
        raise SystemExit(f"error: {problem}")
    print(f"{options.url} is ready")


def _operate(options: argparse.Namespace) -> None:
    log.configure(options.log_format, options.verbose)
    settings = load_settings(options.settings)
    addresses = Addresses(host=options.listen, http_port=options.http_port)
    try:
        asyncio.run(_run(settings, addresses, options.kubeconfig))
    except ConfigException as error:
        _refuse(f"no access to a cluster: {error}. Run in a pod, or give --kubeconfig FILE.")


async def _run(settings: Settings, addresses: Addresses, kubeconfig: str | None) -> None:
    await Operator(settings=settings, addresses=addresses).run(kubeconfig)


def load_settings(path: Path | None) -> Settings:
    """The settings in the file, or the defaults. Exits 64 naming every wrong field."""
    if path is None:
        return Settings()
    try:
        return Settings.load(path)
    except ValidationError as error:
        _refuse(*(f"{path}: {problem}" for problem in wrong_fields(error)))
    except (OSError, yaml.YAMLError) as error:
        _refuse(f"{path}: the settings cannot be read: {error}")


def _refuse(*problems: str) -> NoReturn:
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    raise SystemExit(ExitCode.INVALID_SPEC)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="finetune-operator", description="The FineTune operator.")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="watch FineTuneJobs and bring them to where they should be")
    run.add_argument("--settings", type=Path, metavar="FILE", help="settings file (YAML); default: all defaults")
    run.add_argument("--kubeconfig", metavar="FILE", help="cluster to work on; default: the one that the pod runs in")
    run.add_argument("--listen", default="", metavar="ADDRESS", help="address to listen on; default: all")
    run.add_argument("--http-port", type=int, default=8080, metavar="PORT", help="/healthz, /readyz and /metrics")
    run.add_argument("--log-format", choices=(log.PLAIN, log.JSON), default=log.PLAIN)
    run.add_argument("--verbose", action="store_true", help="log what kopf does, too")
    run.set_defaults(command=_operate)
    ask = commands.add_parser("check", help="ask a running operator whether it is ready")
    ask.add_argument(
        "url", metavar="URL", help="its HTTP server, such as http://finetune-operator.finetune-operator.svc:8080"
    )
    ask.set_defaults(command=_check)
    return parser


if __name__ == "__main__":
    main()
