"""The modules of bench/, which are programs and no package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def bench_module(name: str) -> Any:
    """A module of bench/ by its name."""
    folder = str(ROOT / "bench")
    if folder not in sys.path:
        # At the end: some are called like what tests may import from elsewhere.
        sys.path.append(folder)
    return importlib.import_module(name)
