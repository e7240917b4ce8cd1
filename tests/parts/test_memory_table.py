"""The estimate against what was measured on a GPU; tests/integration compares every point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memory_points import LARGEST_ERROR, comparison, lines

SMALL = [line for line in lines() if line["shape"] == "qwen2-1.5b"]


def test_the_table_has_full_lora_and_qlora_in_two_lengths_and_two_sizes() -> None:
    points = {(line["method"], line["shape"], line["length"]) for line in lines()}
    assert len(lines()) >= 30
    assert {line["kernels"] for line in lines()} == {"transformers", "fused"}
    for method in ("Full", "LoRA", "QLoRA"):
        assert len({length for each, _, length in points if each == method}) >= 2
    assert len({shape for _, shape, _ in points}) == 2


@pytest.mark.parametrize("line", SMALL, ids=lambda line: f"{line['method']} {line['kernels']} {line['length']}")
def test_a_measured_peak_is_predicted(line: dict[str, Any]) -> None:
    assert comparison().compare(line).error == pytest.approx(0, abs=LARGEST_ERROR)


def test_the_table_in_the_documentation_has_every_measured_point() -> None:
    page = (Path(__file__).parents[2] / "docs" / "memory.md").read_text()
    rows = [row for row in page.splitlines() if row.startswith("| qwen2-")]
    assert len(rows) == len(lines()), json.dumps(rows[:2])
