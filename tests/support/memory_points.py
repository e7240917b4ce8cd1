"""Measured points of bench/results, and the program that compares predictions with them."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "bench" / "results" / "2026-11-22-h200-memory.jsonl"
LARGEST_ERROR = 0.15


@cache
def comparison() -> Any:
    """bench/memory/compare.py, which is a program and no package."""
    path = REPOSITORY / "bench" / "memory" / "compare.py"
    spec = importlib.util.spec_from_file_location("memory_compare", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def lines() -> list[dict[str, Any]]:
    """The points that did not run out of memory."""
    return list(comparison().trained(RESULTS))
