"""What is drawn and laid out in characters."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import pytest

from finetune_operator.cli.commands.wait import seconds
from finetune_operator.cli.loss_curve import Point, draw, points_of_lines, points_of_records
from finetune_operator.cli.table import duration, table


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0s"), (59.4, "59s"), (60, "1m"), (61, "1m1s"), (4800, "1h20m"), (86400, "1d"), (90061, "1d1h"), (-5, "0s")],
)
def test_durations_show_their_two_largest_units(number: float, text: str) -> None:
    assert duration(number) == text


@pytest.mark.parametrize(
    ("text", "number"), [("90", 90), ("90s", 90), ("2h", 7200), ("1h30m", 5400), ("1h1m1s", 3661), ("0s", 0)]
)
def test_timeouts_are_read_as_people_write_them(text: str, number: float) -> None:
    assert seconds(text) == number


@pytest.mark.parametrize("text", ["", "h", "1d", "-1s", "1.5h", "30m1h", "5 m"])
def test_a_timeout_that_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a duration such as 90s"):
        seconds(text)


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert list(table(("A", "BB", "C"), [("long", "", "x"), ("", "b", "")])) == [
        "A      BB   C",
        "long        x",
        "       b",
    ]


def test_printed_steps_are_found_among_other_lines_and_the_last_of_a_step_counts() -> None:
    lines = [
        "train: starting at step 0",
        "step 10/200  loss 5.058  lr 0.002  0.12 s/step  eta 23s",
        "step 15/200  eval loss 4.5  0.12 s/step  eta 22s",
        "step 20/200  loss 3.1  eval loss 4.2  lr 0.002  0.12 s/step",
        "train: resuming from step 10",
        "step 20/200  loss 3.2e-01  lr 0.002  0.12 s/step",
    ]
    assert points_of_lines(lines) == [Point(10, 5.058), Point(20, 0.32)]


def test_records_without_a_loss_are_left_out() -> None:
    records = [{"current_steps": 1, "loss": 2}, {"current_steps": 1, "eval_loss": 3}, {"loss": 9}, {"current_steps": 2}]
    assert points_of_records(records) == [Point(1, 2.0)]


def test_a_curve_falls_from_the_top_left_to_the_bottom_right() -> None:
    lines = list(draw([Point(0, 10.0), Point(50, 5.0), Point(100, 0.0)], width=11, height=6))
    assert lines == [
        "       10 |*",
        "          |",
        "          |     *",
        "          |",
        "          |",
        "        0 |          *",
        "     loss +-----------",
        "     step  0       100",
    ]


@pytest.mark.parametrize("points", [[Point(5, 1.0)], [Point(1, 2.0), Point(2, 2.0)]])
def test_a_single_point_or_a_flat_line_can_be_drawn(points: list[Point]) -> None:
    assert sum(line.count("*") for line in draw(points)) == len(points)


def test_help_needs_no_library_that_takes_long_to_import() -> None:
    program = (
        "import sys; from finetune_operator.cli.main import build_parser; build_parser([]).format_help(); "
        "print(sorted({'pydantic', 'kubernetes', 'yaml', 'urllib3'} & set(sys.modules)))"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert time.monotonic() - started < 5


def test_a_local_run_needs_no_cluster_library() -> None:
    program = "import sys, finetune_operator.cli.commands.run; print('kubernetes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
