"""docs/cli.md names everything that the command line takes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_operator.cli.main import COMMANDS, build_parser

DOCUMENT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SHARED = ("--namespace", "--kubeconfig", "--context")


def parsers() -> dict[str, argparse.ArgumentParser]:
    actions = build_parser(list(COMMANDS))._actions
    (subparsers,) = (action for action in actions if isinstance(action, argparse._SubParsersAction))
    return dict(subparsers.choices)


def flags() -> Iterator[tuple[str, str]]:
    for name, parser in parsers().items():
        for action in parser._actions:
            yield from ((name, flag) for flag in action.option_strings if flag not in ("-h", "--help"))


def section(command: str) -> str:
    """The part of the page under the heading that names the command."""
    parts = re.split(r"^## ", DOCUMENT, flags=re.MULTILINE)
    (found,) = (part for part in parts[1:] if command in part.splitlines()[0].split())
    return found


@pytest.mark.parametrize(("command", "flag"), flags(), ids=lambda value: str(value))
def test_every_flag_stands_in_the_commands_section(command: str, flag: str) -> None:
    text = DOCUMENT if flag in (*SHARED, "-n") else section(command)
    assert re.search(rf"`[^`]*(?<![\w-]){flag}(?![\w-])", text)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_and_a_line_in_the_table(command: str) -> None:
    assert re.search(rf"^    .*finetune {command} ", section(command), flags=re.MULTILINE)
    assert f"| {COMMANDS[command]} |" in DOCUMENT


@pytest.mark.parametrize("command", COMMANDS)
def test_no_flag_is_documented_that_does_not_exist(command: str) -> None:
    known = {flag for name, flag in flags() if name == command}
    rows = [line for line in section(command).splitlines() if line.startswith("| `-")]
    named = {flag for row in rows for flag in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row.split("|")[1])}
    assert (
        named - known <= {flag for _, flag in flags()} - known if command in ("suspend", "resume") else named <= known
    )
