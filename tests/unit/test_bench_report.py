"""docs/performance.md says what bench/results say: `make performance` renews it."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench_modules import ROOT, bench_module

report, lines, tables = (bench_module(name) for name in ("report", "report_lines", "report_tables"))
windows = bench_module("windows")
LINE = {
    "bench": "train",
    "shape": "7b",
    "rows": "chat",
    "variant": "lora, tutorial's settings",
    "tokens_per_second": 10.0,
}


def write(folder: Path, name: str, *changes: dict[str, Any]) -> None:
    (folder / name).write_text("".join(json.dumps({**LINE, **change}) + "\n" for change in changes))


def paces(folder: Path) -> dict[str, float]:
    [table] = lines.newest_tables(folder, "train")
    return {line["way"]: line["tokens_per_second"] for line in table.lines}


def test_page_and_pictures_of_performance_are_up_to_date() -> None:
    for path, text in report.generated().items():
        assert path.read_text() == text, f"{path} is out of date; run `make performance`"


def test_no_picture_of_a_measurement_that_is_gone_is_left() -> None:
    assert set((ROOT / "docs").glob("performance-*.svg")) == report.generated().keys() - {report.PAGE}


def test_what_stands_outside_the_markers_is_kept() -> None:
    page = "by hand\n<!-- train: begin (make performance) -->\nold\n<!-- train: end -->\nby hand too\n"
    renewed = report.with_section(page, "train", "new\n")
    assert renewed == page.replace("old", "new")


def test_a_page_without_a_marker_is_refused_with_the_line_that_is_missing() -> None:
    with pytest.raises(ValueError, match="train: end"):
        report.with_section("<!-- train: begin (make performance) -->\n", "train", "")


def test_of_two_files_about_the_same_work_the_newer_one_is_shown_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path, "b.jsonl", {"at": "2026-01-01T00:00:00+00:00", "tokens_per_second": 1.0})
    write(tmp_path, "a.jsonl", {"at": "2026-01-02T00:00:00+00:00", "tokens_per_second": 2.0})
    assert list(paces(tmp_path).values()) == [2.0]


def test_of_two_lines_about_the_same_variant_in_a_file_the_last_one_is_shown(tmp_path: Path) -> None:
    changes = [{"at": f"2026-01-0{day}T00:00:00+00:00", "tokens_per_second": float(day)} for day in (1, 2)]
    write(tmp_path, "a.jsonl", *changes)
    assert list(paces(tmp_path).values()) == [2.0]


def test_other_work_has_a_table_of_its_own(tmp_path: Path) -> None:
    write(
        tmp_path, "a.jsonl", {"at": "2026-01-01T00:00:00+00:00"}, {"at": "2026-01-01T00:00:00+00:00", "rows": "long8k"}
    )
    assert [table.key for table in lines.newest_tables(tmp_path, "train")] == ["7b-chat", "7b-long8k"]


def test_what_failed_is_no_figure(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", {"at": "2026-01-01T00:00:00+00:00", "error": "out of memory"})
    assert lines.newest_tables(tmp_path, "train") == []


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("qlora within 24 GiB", "this trainer: QLoRA within 24 GiB"),
        ("lora fp8 base", "this trainer: LoRA FP8 base"),
        ("full, one card", "this trainer: Full, one card"),
        ("llama-factory lora, best", "LLaMA-Factory 0.9.5: LoRA, best"),
    ],
)
def test_a_variant_is_named_as_people_name_it(way: str, told: str) -> None:
    assert tables.title({"bench": "train", "way": way, "versions": {"llamafactory": "0.9.5"}}) == told


def test_the_pace_is_the_median_of_three_windows_after_the_warm_up() -> None:
    steps = [(100.0, 1.0), *[(1.0, 30.0)] * 2, *[(1.0, 10.0)] * 2, *[(1.0, 20.0)] * 2]
    figures = windows.figures(steps, warm_up=1)
    assert figures["windows"] == [30.0, 10.0, 20.0]
    assert figures["tokens_per_second"] == 20.0
    assert figures["spread"] == 1.0


def test_fewer_measured_steps_than_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="2 steps after the warm-up of 3, expected at least 3"):
        windows.figures([(1.0, 1.0)] * 5, warm_up=3)


@pytest.mark.parametrize(("steps", "seconds", "enough"), [(6, 12.5, False), (6, 12.0, True), (5, 1.0, False)])
def test_a_training_has_gone_on_long_enough_when_its_measured_steps_fill_the_time(
    steps: int, seconds: float, enough: bool
) -> None:
    assert windows.is_enough([(4.0, 1.0)] * steps, warm_up=3, seconds=seconds) is enough
