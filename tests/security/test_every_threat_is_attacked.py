"""SECURITY.md's table and the attacks of this folder agree: every threat is attacked, where the table says so."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
ROW = re.compile(r"^\| (T\d+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
LINK = re.compile(r"\((tests/[^)]+\.py)\)")
THREATS = [f"T{number}" for number in range(1, 19)]
ATTACKS_IN_ALL, ATTACKS_OF_EACH = 60, 2

Attacks = dict[str, dict[str, list[str]]]
"""Tests by threat and file."""


@pytest.fixture(scope="module")
def attacks(request: pytest.FixtureRequest) -> Attacks:
    files = {item.path.name for item in request.session.items}
    if not {file.name for file in FOLDER.glob("test_*.py")} <= files:
        pytest.skip("counts the attacks of the whole folder: pytest tests/security")
    found: Attacks = defaultdict(lambda: defaultdict(list))
    for item in request.session.items:
        for marker in item.iter_markers("threat"):
            found[marker.args[0]][str(item.path.relative_to(ROOT))].append(item.name)
    return found


def table() -> dict[str, tuple[str, ...]]:
    """The rows of the table by threat: the threat in words, what stands against it, where that is tested."""
    return {row[0]: row[1:] for row in ROW.findall((ROOT / "SECURITY.md").read_text())}


def test_the_table_has_every_threat_once_and_in_order() -> None:
    assert [row[0] for row in ROW.findall((ROOT / "SECURITY.md").read_text())] == THREATS


@pytest.mark.parametrize("threat", THREATS)
def test_a_threat_is_attacked_at_least_twice(attacks: Attacks, threat: str) -> None:
    assert sum(len(names) for names in attacks[threat].values()) >= ATTACKS_OF_EACH


@pytest.mark.parametrize("threat", THREATS)
def test_the_table_links_to_the_tests_of_a_threat(attacks: Attacks, threat: str) -> None:
    linked = set(LINK.findall(table()[threat][-1]))
    assert linked == {file for file in attacks[threat] if file.startswith("tests/security/")}


def test_there_are_enough_attacks_and_each_is_of_a_known_threat(attacks: Attacks) -> None:
    assert set(attacks) == set(THREATS)
    assert sum(len(names) for files in attacks.values() for names in files.values()) >= ATTACKS_IN_ALL
