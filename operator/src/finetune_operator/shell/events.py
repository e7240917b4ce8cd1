"""Kubernetes events on a FineTuneJob."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging

from finetune_operator.api.base import API_VERSION, KIND
from finetune_operator.plan.types import Event, Manifest
from finetune_operator.shell import paths
from finetune_operator.shell.client import MERGE_PATCH, Api
from finetune_operator.shell.errors import ApiError

logger = logging.getLogger(__name__)

COMPONENT = "finetune-operator"
_LONGEST_MESSAGE = 1024


class Events:
    """Tells events. An event that cannot be told is logged: no reconcile fails for it."""

    def __init__(self, api: Api, instance: str) -> None:
        self._api = api
        self._instance = instance

    async def tell(self, manifest: Manifest, event: Event, now: dt.datetime) -> None:
        """Record the event, or that it was seen again."""
        body = _body(manifest, event, now, self._instance)
        namespace = manifest["metadata"]["namespace"]
        try:
            await self._create_or_renew(namespace, body)
        except ApiError as error:
            logger.warning(
                "event %s of %s/%s not told: %s", event.reason, namespace, manifest["metadata"]["name"], error
            )

    async def _create_or_renew(self, namespace: str, body: Manifest) -> None:
        try:
            await self._api.create(paths.collection("Event", namespace), body)
        except ApiError as error:
            if not error.is_taken:
                raise
            path = paths.item("Event", namespace, body["metadata"]["name"])
            await self._api.patch(path, {"lastTimestamp": body["lastTimestamp"]}, MERGE_PATCH)


def _body(manifest: Manifest, event: Event, now: dt.datetime, instance: str) -> Manifest:
    metadata = manifest["metadata"]
    told = now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": _name(manifest, event), "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "type": event.type,
        "reason": event.reason,
        "message": _shortened(event.message),
        "firstTimestamp": told,
        "lastTimestamp": told,
        "count": 1,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": instance,
    }


def _name(manifest: Manifest, event: Event) -> str:
    # The same event gets the same name, so that telling it twice leaves one
    text = "\0".join((manifest["metadata"]["uid"], event.type, event.reason, event.message))
    return f"{manifest['metadata']['name']}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _shortened(message: str) -> str:
    return message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 3] + "..."
