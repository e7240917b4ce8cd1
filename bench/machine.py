"""What a figure was measured with: date, card, driver, processor, and the versions of packages."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def about(packages: Iterable[str]) -> dict[str, Any]:
    """Fields of every line of results."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "card": card_field("name"),
        "cards": count_cards(),
        "driver": card_field("driver_version"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "versions": versions(packages),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Those that are installed here, and Python's."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def count_cards() -> int:
    """How many GPUs there are."""
    return len(_cards("name"))


def card_field(name: str) -> str | None:
    """A field of the first GPU, as nvidia-smi calls it; None where there is no GPU."""
    cards = _cards(name)
    return cards[0] if cards else None


def _cards(name: str) -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={name}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return []
    return done.stdout.strip().splitlines()


def _processor() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()
