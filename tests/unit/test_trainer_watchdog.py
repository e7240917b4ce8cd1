"""Training that stands still is told from training that takes its time."""

import pytest

from finetune_operator.api.run import WatchdogBounds
from finetune_trainer.train.watchdog import Phase, Watchdog

BOUNDS = WatchdogBounds(seconds=300, median_steps=10, seconds_otherwise=1800)


def following(*told: tuple[float, Phase, int]) -> Watchdog:
    """A watchdog that one process has told of this, each so many seconds after the one before."""
    watchdog = Watchdog(BOUNDS)
    for seconds, phase, step in told:
        watchdog.passed(seconds)
        watchdog.beat(0, phase, step)
    return watchdog


STEPS = [(20.0, Phase.STEP, 1), *[(2.0, Phase.STEP, step) for step in range(2, 12)]]


@pytest.mark.parametrize(
    ("told", "bound"),
    [
        ([], 1800),
        ([(5, Phase.SETUP, 0)], 1800),
        ([(20, Phase.STEP, 1)], 300),
        (STEPS, 300),
        ([(0, Phase.STEP, 1), *[(50, Phase.STEP, step) for step in range(2, 12)]], 500),
        ([*STEPS, (1, Phase.EVALUATE, 11)], 1800),
        ([*STEPS, (1, Phase.SAVE, 11)], 1800),
        ([*STEPS, (1, Phase.SAVE, 11), (900, Phase.TRAIN, 11)], 300),
        ([*STEPS, (1, Phase.FINISH, 11)], 1800),
    ],
    ids=[
        "nothing told yet",
        "loading",
        "first step made",
        "quick steps",
        "steps of 50 s",
        "evaluating",
        "saving",
        "back from saving",
        "writing the result",
    ],
)
def test_how_long_silence_is_borne_depends_on_what_is_done(told: list[tuple[float, Phase, int]], bound: float) -> None:
    watchdog = following(*told)
    watchdog.passed(bound)
    assert not watchdog.overdue
    watchdog.passed(0.1)
    assert watchdog.overdue


def test_evaluations_and_checkpoints_do_not_count_as_steps_that_took_long() -> None:
    watchdog = following(*STEPS, (900, Phase.EVALUATE, 11), (900, Phase.TRAIN, 11), (2, Phase.STEP, 12))
    assert watchdog.median_step == 2


def test_the_slowest_of_several_processes_decides_how_long_is_borne() -> None:
    watchdog = following(*STEPS)
    watchdog.beat(1, Phase.SAVE, 11)
    assert watchdog.bound == 1800
    watchdog.ended(1)
    assert watchdog.bound == 300


def test_any_process_that_goes_on_breaks_the_silence() -> None:
    watchdog = following(*STEPS)
    watchdog.passed(299)
    watchdog.beat(1, Phase.STEP, 12)
    watchdog.passed(299)
    assert not watchdog.overdue
    assert watchdog.step == 12
