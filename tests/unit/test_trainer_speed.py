"""How fast a training is, what it waits for, and how batches are read before they are needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from finetune_trainer.train.entry import Entry
from finetune_trainer.train.flops import LearningCost
from finetune_trainer.train.read_ahead import ReadAhead
from finetune_trainer.train.speed import Speed, SpeedMeter, WaitWarning

COST = LearningCost(per_token=10**12, per_pair=0, layers={None: 1})


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def slow(clock: Clock, *seconds: float) -> Iterator[int]:
    for number, each in enumerate(seconds):
        clock.seconds += each
        yield number


def test_speed_is_what_was_learnt_since_the_last_reading_over_the_time_since() -> None:
    clock = Clock()
    meter = SpeedMeter(COST, limit=100, processes=2, clock=clock)
    clock.seconds += 7
    meter.begin()
    meter.learnt([30, 10])
    meter.learnt([60])
    clock.seconds += 2
    # The operations are those of this process's GPU, the tokens those of both.
    assert meter.read() == Speed(100.0, 50.0, 0.5, 0.0)
    clock.seconds += 1
    assert meter.read() == Speed(0.0, 0.0, 0.0, 0.0)


def test_the_limit_of_an_unknown_card_and_the_operations_of_an_unknown_model_are_not_made_up() -> None:
    for cost, limit, tflops in ((COST, None, 2.0), (None, 100.0, None)):
        clock = Clock()
        meter = SpeedMeter(cost, limit, clock=clock)
        meter.learnt([2])
        clock.seconds += 1
        assert meter.read() == Speed(2.0, tflops, None, 0.0)


def test_the_time_that_batches_are_waited_for_is_counted_and_that_between_them_is_not() -> None:
    clock = Clock()
    meter = SpeedMeter(None, clock=clock)
    for _ in meter.watched(slow(clock, 0.5, 0.25, 0.25)):
        clock.seconds += 3
    assert meter.read().data_wait_share == 0.1
    list(meter.watched(slow(clock, 4)))
    assert meter.read().data_wait_share == 1.0


def entry(step: int, share: float | None) -> Entry:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    return Entry(step, 100, 0.1, 1.0, step, now, loss=1.0, data_wait_share=share)


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ([0.01, 0.04, 0.05], 0),
        ([0.5, 0.01, 0.5], 0),
        ([0.5, None, 0.12], 1),
        ([0.01, 0.5, 0.12, 0.5, 0.5], 1),
    ],
    ids=["little", "now and then", "an evaluation in between", "once"],
)
def test_a_training_that_keeps_waiting_for_rows_says_so_once(
    shares: list[float | None], told: int, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = WaitWarning()
    for step, share in enumerate(shares):
        warning.look(entry(step, share))
    said = capsys.readouterr().out
    assert said.count("train: up to step 2, 12% of the time passed in waiting for rows, expected under 1%") == told
    assert len(said.splitlines()) == told


class Source(Iterator[int]):
    """Numbers from 0, and how many were read."""

    def __init__(self, end: int) -> None:
        self.read = 0
        self.threads: set[str] = set()
        self._end = end

    def __next__(self) -> int:
        self.threads.add(threading.current_thread().name)
        if self.read == self._end:
            raise StopIteration
        self.read += 1
        return self.read - 1


def begin() -> None:
    """Nothing to do in the thread first."""


def test_items_come_in_order_and_end_where_their_source_does() -> None:
    reader = ReadAhead(Source(5), 3, begin)
    assert list(reader) == [0, 1, 2, 3, 4]
    assert list(reader) == []
    reader.close()


def test_what_comes_next_is_read_by_a_thread_before_it_is_asked_for_and_no_more_than_that() -> None:
    source, begun = Source(100), threading.Event()
    reader = ReadAhead(source, 3, begun.set)
    reader.settle()
    assert source.read == 3
    assert next(reader) == 0
    reader.settle()
    assert source.read == 4
    reader.close()
    assert source.read == 4
    assert begun.is_set()
    assert source.threads == {"batches_0"}


def test_what_goes_wrong_in_the_thread_is_raised_where_the_item_is_asked_for() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the volume is gone")

    reader = ReadAhead(broken(), 3, begin)
    assert next(reader) == 1
    with pytest.raises(OSError, match="the volume is gone"):
        next(reader)
    reader.close()


def test_closing_waits_for_what_is_being_read_and_reads_no_more() -> None:
    go_on, reading, read = threading.Event(), threading.Event(), []

    def held() -> Iterator[int]:
        for number in range(9):
            reading.set()
            go_on.wait(10)
            read.append(number)
            yield number

    reader = ReadAhead(held(), 3, begin)
    assert reading.wait(5)
    closing = threading.Thread(target=reader.close)
    closing.start()
    go_on.set()
    closing.join(10)
    assert not closing.is_alive()
    assert len(read) <= 3
