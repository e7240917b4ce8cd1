"""Workers go on whatever happens to one job, and the resync reaches all of them."""

import asyncio
from collections.abc import Callable

import pytest

from finetune_operator.shell.errors import ApiError, Request
from finetune_operator.shell.job_view import UnreadableStatus
from finetune_operator.shell.metrics import Metrics
from finetune_operator.shell.queue import Key, WorkQueue
from finetune_operator.shell.workers import Resync, work
from scripted_api import ScriptedApi
from virtual_time import run_virtually

ILL, WELL = Key("team", "ill"), Key("team", "well")
GET = Request("GET", "/x")


class Reconciler:
    """Fails for one job so many times, and notes when it was called."""

    def __init__(self, failures: list[Exception], again_after: float | None = None) -> None:
        self.failures = failures
        self.again_after = again_after
        self.calls: list[tuple[str, float]] = []

    async def reconcile(self, key: Key) -> float | None:
        self.calls.append((key.name, asyncio.get_running_loop().time()))
        if key == ILL and self.failures:
            raise self.failures.pop(0)
        return self.again_after


def run_for(seconds: float, reconciler: Reconciler, start: Callable[[WorkQueue], None]) -> str:
    """Let two workers run for that long; the metrics."""

    async def run() -> str:
        queue = WorkQueue()
        metrics = Metrics(lambda: len(queue))
        workers = [asyncio.create_task(work(queue, reconciler, metrics)) for _ in range(2)]  # type: ignore[arg-type]
        start(queue)
        await asyncio.sleep(seconds)
        assert not any(worker.done() for worker in workers)
        for worker in workers:
            worker.cancel()
        return metrics.text().decode()

    return run_virtually(run())


def test_a_failing_job_is_tried_again_later_and_later_and_holds_nobody_up() -> None:
    reconciler = Reconciler([ValueError("bug"), UnreadableStatus("status.x"), ApiError(GET, 500, "", "etcd")])

    def start(queue: WorkQueue) -> None:
        queue.add(ILL)
        queue.add(WELL)

    figures = run_for(60, reconciler, start)
    assert [at for name, at in reconciler.calls if name == "ill"] == [0, 1, 3, 7]
    assert [at for name, at in reconciler.calls if name == "well"] == [0]
    assert 'finetune_reconciles_total{outcome="error"} 3.0' in figures
    assert 'finetune_reconciles_total{outcome="done"} 2.0' in figures


@pytest.mark.parametrize(
    ("error", "outcome", "pause"),
    [
        (ApiError(GET, 409, "Conflict", "changed"), "conflict", 1),
        (ApiError(GET, 422, "Invalid", "spec.x"), "refused", 1),
        (ApiError(GET, 429, "TooManyRequests", "busy", retry_after=9.0), "error", 9),
        (ApiError(GET, 0, "TimeoutError", ""), "error", 1),
    ],
)
def test_each_kind_of_refusal_has_its_pause_and_its_name(error: ApiError, outcome: str, pause: float) -> None:
    reconciler = Reconciler([error])
    figures = run_for(30, reconciler, lambda queue: queue.add(ILL))
    assert reconciler.calls == [("ill", 0), ("ill", pause)]
    assert f'finetune_reconciles_total{{outcome="{outcome}"}} 1.0' in figures


def test_a_job_that_asks_for_it_is_looked_at_again() -> None:
    reconciler = Reconciler([], again_after=10)
    run_for(35, reconciler, lambda queue: queue.add(WELL))
    assert [at for _, at in reconciler.calls] == [0, 10, 20, 30]


def test_the_resync_reaches_every_job_of_every_namespace() -> None:
    def answer(namespace: str, *names: str) -> tuple[int, dict[str, object]]:
        return 200, {"items": [{"metadata": {"namespace": namespace, "name": name}} for name in names]}

    path = "/apis/finetune-operator.io/v1alpha1/namespaces/{}/finetunejobs"
    api = ScriptedApi(
        {("GET", path.format("a")): answer("a", "one", "two"), ("GET", path.format("b")): answer("b", "three")}
    )

    async def run() -> list[Key]:
        queue = WorkQueue()
        async with api.client() as client:
            resync = Resync(client, queue, ["a", "b"], 0.05)
            assert resync.silence == 0
            running = asyncio.create_task(resync.run())
            found = [await queue.get() for _ in range(3)]
            running.cancel()
        return found

    assert asyncio.run(run()) == [Key("a", "one"), Key("a", "two"), Key("b", "three")]
