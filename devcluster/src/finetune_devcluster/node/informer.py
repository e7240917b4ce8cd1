"""List and watch of one resource: a local copy that is always brought up to date again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from finetune_devcluster.node.api import UNREACHABLE, Api, ApiError
from finetune_devcluster.node.settings import Object

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5


class Informer:
    """Calls `on_change(object, deleted)` for each change, also for those missed while the server was away."""

    def __init__(
        self,
        api: Api,
        path: str,
        on_change: Callable[[Object, bool], None],
        *,
        field_selector: str | None = None,
    ) -> None:
        self._api = api
        self._path = path
        self._on_change = on_change
        self._params = {"fieldSelector": field_selector} if field_selector else {}
        self.objects: dict[str, Object] = {}
        self.synced = asyncio.Event()
        self._away = False

    async def run(self) -> None:
        while True:
            try:
                version = await self._list()
                await self._follow(version)
            except ApiError as error:
                logger.info("%s: listing again: %s", self._path, error)
            except UNREACHABLE as error:
                if not self._away:  # once, however long it lasts
                    logger.warning("%s: API server away: %s", self._path, error)
                self._away = True
            await asyncio.sleep(_RETRY_SECONDS)

    async def _list(self) -> str:
        answer = await self._api.get(self._path, **self._params)
        listed = {_key(item): item for item in answer.get("items") or []}
        for key in self.objects.keys() - listed.keys():
            self._on_change(self.objects.pop(key), True)
        for key, item in listed.items():
            self._store(key, item)
        self.synced.set()
        if self._away:
            logger.info("%s: API server is back", self._path)
        self._away = False
        return str(answer["metadata"]["resourceVersion"])

    async def _follow(self, version: str) -> None:
        while True:
            async for event in self._api.watch(self._path, **self._params, resourceVersion=version):
                item = event["object"]
                version = item["metadata"]["resourceVersion"]
                if event["type"] == "DELETED":
                    self.objects.pop(_key(item), None)
                    self._on_change(item, True)
                elif event["type"] != "BOOKMARK":
                    self._store(_key(item), item)

    def _store(self, key: str, item: Object) -> None:
        known = self.objects.get(key)
        if known and known["metadata"]["resourceVersion"] == item["metadata"]["resourceVersion"]:
            return
        self.objects[key] = item
        self._on_change(item, False)


def _key(item: Object) -> str:
    # The uid, not the name: an object made again under its old name while the watch was down is another object.
    return str(item["metadata"]["uid"])
