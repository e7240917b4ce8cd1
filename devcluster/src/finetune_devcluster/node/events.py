"""Events on pods, as `kubectl describe pod` shows them."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter

from finetune_devcluster.node import clock
from finetune_devcluster.node.api import API_FAILURES, Api
from finetune_devcluster.node.settings import Object

logger = logging.getLogger(__name__)

COMPONENT = "process-node"
_MAX_MESSAGE = 1024


class EventRecorder:
    """Sends in the background; an event that can not be sent is lost, as the kubelet's is."""

    def __init__(self, api: Api, node_name: str) -> None:
        self._api = api
        self._node_name = node_name
        self._names: dict[tuple[str, str, str], str] = {}
        self._counts: Counter[str] = Counter()
        self._sending: set[asyncio.Task[None]] = set()

    def emit(self, pod: Object, reason: str, message: str, *, warning: bool = False) -> None:
        metadata = pod["metadata"]
        key = (metadata["uid"], reason, message)
        name = self._names.setdefault(key, f"{metadata['name']}.{uuid.uuid4().hex[:16]}")
        self._counts[name] += 1
        task = asyncio.create_task(self._send(pod, name, reason, message[:_MAX_MESSAGE], warning))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def forget(self, pod_uid: str) -> None:
        for key in [key for key in self._names if key[0] == pod_uid]:
            del self._counts[self._names.pop(key)]

    async def _send(self, pod: Object, name: str, reason: str, message: str, warning: bool) -> None:
        namespace, now, count = pod["metadata"]["namespace"], clock.rfc3339(), self._counts[name]
        path = f"/api/v1/namespaces/{namespace}/events"
        try:
            if count > 1:
                await self._api.patch(f"{path}/{name}", {"count": count, "lastTimestamp": now})
            else:
                await self._api.create(path, self._event(pod, name, reason, message, warning, now))
        except API_FAILURES as error:
            logger.info("event %s of pod %s not sent: %s", reason, pod["metadata"]["name"], error)

    def _event(self, pod: Object, name: str, reason: str, message: str, warning: bool, now: str) -> Object:
        metadata = pod["metadata"]
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "source": {"component": COMPONENT, "host": self._node_name},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._node_name,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
