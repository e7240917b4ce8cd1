"""status.progress: what it shows and how often it changes."""

from __future__ import annotations

import pytest

from finetune_operator.api.status import Progress, Results
from finetune_operator.plan import progress
from finetune_operator.plan.figures import finite, percent, share, significant
from manifest_builders import WorldBuilder, a_job
from plan_answers import decide

OLD = Progress(step=120, total_steps=500, percent="24%", summary="120/500", updated="2026-11-21T12:00:00Z")


def training() -> WorldBuilder:
    return a_job().training().running("qwen-train-0")


def shown(world: WorldBuilder) -> Progress:
    found = decide(world).status.progress
    assert found is not None
    return found


def test_a_report_is_shown_in_words() -> None:
    world = training().reports(
        120,
        500,
        remaining=4800,
        loss="1.23456789",
        eval_loss="2.0",
        learning_rate="9.87654e-05",
        current_epoch="0.72",
        tokens_per_second="17221.3",
        tflops_per_second="485.612",
        share_of_limit="0.491013",
        data_wait_share="0.000204",
    )
    assert shown(world) == Progress(
        step=120,
        total_steps=500,
        percent="24%",
        summary="120/500",
        epoch="0.72",
        loss="1.235",
        eval_loss="2",
        learning_rate="9.877e-05",
        tokens_per_second="17221",
        tflops_per_second="485.6",
        share_of_limit="49.1%",
        data_wait_share="0.0204%",
        eta="1h20m",
        updated="2026-11-21T12:00:00Z",
    )


def test_no_report_leaves_the_progress_as_it_was() -> None:
    assert shown(training().with_status(progress=OLD)) == OLD


def test_within_ten_seconds_and_the_same_percent_the_old_progress_stays_and_is_looked_at_again() -> None:
    world = training().with_status(progress=OLD).reports(121, 500, at=3).at(4)
    planned = decide(world)
    assert planned.status.progress == OLD
    assert planned.requeue_after == 6


def test_after_ten_seconds_a_new_report_is_shown() -> None:
    assert shown(training().with_status(progress=OLD).reports(121, 500, at=3).at(10)).step == 121


def test_a_new_percent_is_shown_at_once() -> None:
    assert shown(training().with_status(progress=OLD).reports(125, 500, at=1).at(1)).percent == "25%"


def test_a_report_that_is_shown_already_changes_nothing() -> None:
    planned = decide(training().with_status(progress=OLD).reports(120, 500, at=0.4).at(60))
    assert planned.status.progress == OLD
    assert planned.requeue_after is None


def test_a_report_without_steps_keeps_those_known() -> None:
    progressed = shown(training().with_status(progress=OLD).reports(0, 0, at=30, loss="0.5").at(30))
    assert (progressed.summary, progressed.loss) == ("120/500", "0.5")


def test_a_finished_training_is_at_its_end() -> None:
    last = decide(a_job().training().with_status(progress=OLD).done("qwen-train-0")).status.progress
    assert last is not None
    assert (last.percent, last.summary, last.eta) == ("100%", "500/500", None)


def test_the_loss_of_a_finished_training_is_its_last_though_the_last_report_was_lost() -> None:
    last = decide(a_job().training().with_status(progress=OLD).done("qwen-train-0", lastLoss=0.0421)).status.progress
    assert last is not None
    assert last.loss == "0.0421"


def test_early_stopping_ends_at_the_steps_that_were_done() -> None:
    world = a_job().training().with_status(progress=OLD).done("qwen-train-0", steps=300)
    planned = decide(world)
    assert planned.status.results == Results(steps=300)
    assert planned.status.progress is not None
    assert planned.status.progress.summary == "300/300"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, None),
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h0m"),
        (4800, "1h20m"),
        (187200, "2d4h"),
    ],
)
def test_the_time_left_is_told_in_two_units(seconds: int | None, text: str | None) -> None:
    assert progress.eta(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.23456, "1.235"), ("0.0000987654", "9.877e-05"), (17221.4, "17221"), (0, "0"), ("nan", "nan"), ("n/a", "n/a")],
)
def test_figures_have_four_significant_digits(value: float | str, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("value", "text", "number"),
    [
        ("0.49101", "49.1%", 0.491),
        ("0.000204", "0.0204%", 0.000204),
        ("0", "0%", 0.0),
        ("1", "100%", 1.0),
        ("nan", "nan%", None),
        ("1e999", "inf%", None),
        ("none known", "none known", None),
        ("", "", None),
    ],
)
def test_a_share_is_told_in_percent_and_read_back_where_it_is_a_number(
    value: str, text: str, number: float | None
) -> None:
    assert percent(value) == text
    assert share(text) == (None if number is None else pytest.approx(number))
    assert share(None) is None


@pytest.mark.parametrize(
    ("text", "number"), [("17221", 17221), ("nan", None), ("-inf", None), ("fast", None), (None, None)]
)
def test_only_finite_numbers_are_figures(text: str | None, number: float | None) -> None:
    assert finite(text) == number
