"""The workers that empty the queue, and the resync that makes missed events harmless."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from finetune_operator.api.base import KIND
from finetune_operator.shell import paths
from finetune_operator.shell.client import Api
from finetune_operator.shell.errors import ApiError
from finetune_operator.shell.job_view import UnreadableStatus
from finetune_operator.shell.metrics import Metrics
from finetune_operator.shell.queue import Key, WorkQueue
from finetune_operator.shell.reconcile import Reconciler

logger = logging.getLogger(__name__)


async def work(queue: WorkQueue, reconciler: Reconciler, metrics: Metrics) -> None:
    """Take keys and reconcile them, for ever. No failure of one job ends it."""
    while True:
        key = await queue.get()
        started = time.monotonic()
        try:
            outcome = await _attempt(key, queue, reconciler)
        finally:
            queue.done(key)
        metrics.reconciles.labels(outcome).inc()
        metrics.seconds.observe(time.monotonic() - started)


async def _attempt(key: Key, queue: WorkQueue, reconciler: Reconciler) -> str:
    try:
        again_after = await reconciler.reconcile(key)
    except ApiError as error:
        return _try_again(key, queue, error)
    except UnreadableStatus as error:
        logger.error("%s: %s", key, error)
        queue.retry(key)
        return "error"
    except Exception:
        logger.exception("%s: reconcile failed; this is a fault of the operator", key)
        queue.retry(key)
        return "error"
    queue.forget(key)
    if again_after is not None:
        queue.add_after(key, again_after)
    return "done"


def _try_again(key: Key, queue: WorkQueue, error: ApiError) -> str:
    delay = queue.retry(key, at_least=error.retry_after or 0.0)
    if error.is_conflict:
        logger.info("%s: changed meanwhile, read again in %.0f s (%s)", key, delay, error.message)
        return "conflict"
    logger.warning("%s: tried again in %.0f s: %s", key, delay, error)
    return "refused" if error.is_refused else "error"


class Resync:
    """Has every job looked at again each period, spread over it."""

    def __init__(self, api: Api, queue: WorkQueue, namespaces: Sequence[str], period: float) -> None:
        self._api = api
        self._queue = queue
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self._period = period
        self._last: float | None = None

    @property
    def silence(self) -> float:
        """Seconds since the resync gave its last sign of life; 0 before it runs.

        A resync that the API server refused is one, too: a restart of the operator would not help.
        """
        return 0.0 if self._last is None else time.monotonic() - self._last

    async def run(self) -> None:
        """Resync for ever."""
        while True:
            self._last = time.monotonic()
            await asyncio.sleep(self._period)
            try:
                await self._once()
            except ApiError as error:
                logger.warning("jobs not listed: %s", error)

    async def _once(self) -> None:
        keys = [key for namespace in self._namespaces for key in await self._keys(namespace)]
        for index, key in enumerate(keys):
            self._queue.add_after(key, self._period * index / len(keys))

    async def _keys(self, namespace: str | None) -> list[Key]:
        found = self._api.pages(paths.collection(KIND, namespace))
        return [Key(item["metadata"]["namespace"], item["metadata"]["name"]) async for item in found]
