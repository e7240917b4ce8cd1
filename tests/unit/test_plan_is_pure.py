"""Deciding and describing depend on what was observed alone: the import rules forbid the rest, but cannot see the clock."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import finetune_operator

PACKAGE = Path(finetune_operator.__file__).parent
MODULES = sorted([*(PACKAGE / "plan").glob("*.py"), *(PACKAGE / "build").glob("*.py")])
CLOCKS = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}


def clock_calls(source: str) -> list[int]:
    """Lines that ask what time it is."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if tuple(ast.unparse(call.func).split(".")[-2:]) in CLOCKS]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_module_asks_for_the_time(module: Path) -> None:
    assert clock_calls(module.read_text()) == []


def test_asking_for_the_time_is_found() -> None:
    assert clock_calls("import datetime as dt\nnow = dt.datetime.now(dt.UTC)\n") == [2]
