"""Writes a pod's status to the API server whenever it has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from finetune_devcluster.node import clock
from finetune_devcluster.node.api import STRATEGIC_PATCH, UNREACHABLE, ApiError
from finetune_devcluster.node.pod_context import PodContext
from finetune_devcluster.node.settings import Object
from finetune_devcluster.node.status import PodFacts, pod_status

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5


class StatusWriter:
    def __init__(self, context: PodContext, facts: Callable[[], PodFacts]) -> None:
        self._context = context
        self._facts = facts
        self._sent: Object | None = None
        self._silent = False
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        while True:
            await self._context.dirty.wait()
            self._context.dirty.clear()
            await self.flush()

    def silence(self) -> None:
        """Writes nothing more."""
        self._silent = True

    async def flush(self) -> None:
        """Writes the status as it is now; returns when the API server has it or the pod is gone."""
        while not await self._write():
            await asyncio.sleep(_RETRY_SECONDS)

    async def _write(self) -> bool:
        async with self._lock:
            pod = self._context.pod
            status = pod_status(self._known(pod), self._facts(), clock.rfc3339())
            if self._silent or status == self._sent:
                return True
            try:
                await self._patch(pod, status)
            except ApiError as error:
                if error.status not in (404, 409):
                    logger.warning("pod %s: status not written: %s", self._context.name, error)
                    return False
            except UNREACHABLE as error:
                logger.info("pod %s: status not written yet: %r", self._context.name, error)
                return False
            self._sent = status
            return True

    def _known(self, pod: Object) -> Object:
        """The pod with the conditions last sent: the watch may not have brought them back yet."""
        status = pod.get("status") or {}
        conditions = {entry["type"]: entry for entry in status.get("conditions") or []}
        conditions |= {entry["type"]: entry for entry in (self._sent or {}).get("conditions") or []}
        return {**pod, "status": {**status, "conditions": list(conditions.values())}}

    async def _patch(self, pod: Object, status: Object) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        # A strategic patch merges conditions by type, which keeps those of others; addresses are replaced whole.
        replaced: Object = {}
        for key in ("podIPs", "hostIPs"):
            if key in status:
                replaced[key] = [{"$patch": "replace"}, *status[key]]
        body = {"metadata": {"uid": metadata["uid"]}, "status": {**status, **replaced}}
        await self._context.node.api.patch(path, body, STRATEGIC_PATCH)
