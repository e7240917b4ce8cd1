"""Looks the locked requirements up in the index's list of known vulnerabilities, with pip-audit.

Exit code 1: there are some. 2: the service that knows them did not answer for everything, so nothing is proved.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOUND, UNKNOWN = 1, 2
AUDIT = (
    sys.executable,
    "-m",
    "pip_audit",
    "--disable-pip",
    "--require-hashes",
    "--format",
    "json",
    "--progress-spinner",
    "off",
)


def audited(lock: Path) -> list[dict[str, Any]] | str:
    """What pip-audit says of each package of a lock file, or why it says nothing."""
    ended = subprocess.run([*AUDIT, "--requirement", str(lock)], capture_output=True, text=True, timeout=300)
    try:
        found: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError):
        return (ended.stderr.strip().splitlines() or ["no answer"])[-1]
    return found


def tell(lock: Path) -> int:
    """Print what is known of a lock file."""
    found = audited(lock)
    if isinstance(found, str):
        print(f"{lock.name}: not audited: {found}", file=sys.stderr)
        return UNKNOWN
    for package in found:
        for hole in package.get("vulns", ()):
            print(f"{lock.name}: {package['name']} {package['version']}: {hole['id']}, fixed in {hole['fix_versions']}")
    unknown = [package["name"] for package in found if "skip_reason" in package]
    if unknown:
        print(
            f"{lock.name}: {len(unknown)} of {len(found)} packages are not known to the service, such as {unknown[0]}",
            file=sys.stderr,
        )
    return FOUND if any(package.get("vulns") for package in found) else UNKNOWN if unknown else 0


def main() -> int:
    """Audit every lock file of the repository."""
    results = [tell(lock) for lock in sorted(Path(__file__).parent.glob("*.txt")) if lock.stem != "dev"]
    if UNKNOWN in results:
        print(
            "audit: the vulnerability service did not answer for every package: this says nothing of those. Run it where the "
            "public index can be reached; a mirror has no list of vulnerabilities.",
            file=sys.stderr,
        )
    return FOUND if FOUND in results else max(results, default=0)


if __name__ == "__main__":
    sys.exit(main())
