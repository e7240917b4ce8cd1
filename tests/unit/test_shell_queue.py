"""The work queue, in virtual time."""

import asyncio

import pytest

from finetune_operator.shell.queue import LONGEST_DELAY, Key, WorkQueue
from virtual_time import run_virtually

KEY = Key("team", "job")
OTHER = Key("team", "other")


async def taken(queue: WorkQueue) -> tuple[Key, float]:
    """The next key, and when it came."""
    key = await queue.get()
    return key, asyncio.get_running_loop().time()


def test_a_key_that_is_added_many_times_is_handed_out_once() -> None:
    async def check() -> None:
        queue = WorkQueue()
        for key in (KEY, KEY, OTHER, KEY):
            queue.add(key)
        assert len(queue) == 2
        assert [await queue.get(), await queue.get()] == [KEY, OTHER]
        assert len(queue) == 0

    run_virtually(check())


def test_a_key_in_work_is_handed_out_again_only_when_that_work_is_done() -> None:
    async def check() -> None:
        queue = WorkQueue()
        queue.add(KEY)
        await queue.get()
        queue.add(KEY)
        queue.add(KEY)
        assert len(queue) == 0
        queue.done(KEY)
        assert await queue.get() == KEY
        queue.done(KEY)
        assert len(queue) == 0

    run_virtually(check())


def test_a_worker_that_waits_gets_the_key_that_comes() -> None:
    async def check() -> None:
        queue = WorkQueue()
        asyncio.get_running_loop().call_later(3, queue.add, KEY)
        assert await taken(queue) == (KEY, 3)

    run_virtually(check())


def test_each_of_several_waiting_workers_gets_its_own_key() -> None:
    async def check() -> None:
        queue = WorkQueue()
        workers = [asyncio.create_task(queue.get()) for _ in range(2)]
        await asyncio.sleep(1)
        queue.add(KEY)
        queue.add(OTHER)
        assert {await worker for worker in workers} == {KEY, OTHER}

    run_virtually(check())


@pytest.mark.parametrize(("pauses", "expected"), [([5, 2], 2), ([2, 5], 2), ([4], 4)])
def test_of_several_delayed_adds_the_earliest_counts(pauses: list[float], expected: float) -> None:
    async def check() -> None:
        queue = WorkQueue()
        for pause in pauses:
            queue.add_after(KEY, pause)
        assert await taken(queue) == (KEY, expected)
        queue.done(KEY)
        await asyncio.sleep(60)
        assert len(queue) == 0

    run_virtually(check())


def test_retries_come_later_and_later_up_to_a_minute_until_the_key_is_forgotten() -> None:
    async def check() -> list[float]:
        queue = WorkQueue()
        delays = []
        for _ in range(9):
            before = asyncio.get_running_loop().time()
            announced = queue.retry(KEY)
            _, now = await taken(queue)
            queue.done(KEY)
            assert now - before == announced
            delays.append(announced)
        queue.forget(KEY)
        return [*delays, queue.retry(KEY)]

    assert run_virtually(check()) == [1, 2, 4, 8, 16, 32, LONGEST_DELAY, LONGEST_DELAY, LONGEST_DELAY, 1]


def test_keys_back_off_each_for_itself() -> None:
    async def check() -> None:
        queue = WorkQueue()
        queue.retry(KEY)
        queue.retry(KEY)
        assert queue.retry(OTHER) == 1

    run_virtually(check())


def test_a_server_that_asks_for_a_longer_pause_gets_it() -> None:
    async def check() -> None:
        queue = WorkQueue()
        assert queue.retry(KEY, at_least=17) == 17

    run_virtually(check())


def test_an_event_does_not_wait_for_the_back_off() -> None:
    async def check() -> None:
        queue = WorkQueue()
        for _ in range(7):
            queue.retry(KEY)
            await queue.get()
            queue.done(KEY)
        queue.retry(KEY)
        queue.add(KEY)
        before = asyncio.get_running_loop().time()
        assert await taken(queue) == (KEY, before)

    run_virtually(check())
