"""The estimate against every point that was measured on a GPU."""

from __future__ import annotations

from typing import Any

import pytest

from memory_points import LARGEST_ERROR, comparison, lines


@pytest.mark.parametrize("line", lines(), ids=lambda line: f"{line['shape']} {line['method']} {line['kernels']}")
def test_every_measured_peak_is_predicted(line: dict[str, Any]) -> None:
    assert comparison().compare(line).error == pytest.approx(0, abs=LARGEST_ERROR)
