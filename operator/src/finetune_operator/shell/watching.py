"""kopf, set up to do one thing: keep watch streams alive and call the handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from finetune_operator.api.base import GROUP
from finetune_operator.shell import credentials, handlers
from finetune_operator.shell.queue import WorkQueue

SERVER_SECONDS = 600
"""The API server ends a watch after so long, and the client gives up on one a minute later: none goes silent for ever."""
CLIENT_SECONDS = 660
CONNECT_SECONDS = 10
REQUEST_SECONDS = 30


def settings() -> kopf.OperatorSettings:
    """kopf's settings. It keeps no state on objects here; the prefixes are ours all the same, as they cannot change later."""
    made = kopf.OperatorSettings()
    made.persistence.finalizer = f"{GROUP}/finalizer"
    made.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    made.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP, key="last-handled-configuration")
    made.posting.enabled = False
    # No look at CRDs and Namespaces, for which the operator has no right
    made.scanning.disabled = True
    made.peering.standalone = True
    made.watching.server_timeout = SERVER_SECONDS
    made.watching.client_timeout = CLIENT_SECONDS
    made.watching.connect_timeout = CONNECT_SECONDS
    made.networking.connect_timeout = CONNECT_SECONDS
    made.networking.request_timeout = REQUEST_SECONDS
    handlers.select_children(made)
    return made


async def watch(
    configuration: Configuration,
    queue: WorkQueue,
    namespaces: Sequence[str],
    stop: asyncio.Event,
    started: asyncio.Event,
    before_end: Callable[[], Awaitable[None]],
) -> None:
    """Watch until stopped by the flag, SIGTERM or SIGINT. Raises what kopf cannot recover from."""
    registry = kopf.OperatorRegistry()
    handlers.register(registry, queue)

    @kopf.on.login(registry=registry)
    async def _login(**_: Any) -> kopf.ConnectionInfo:
        return await credentials.connection_info(configuration)

    @kopf.on.cleanup(registry=registry)
    async def _cleanup(**_: Any) -> None:
        await before_end()

    await kopf.operator(
        registry=registry,
        settings=settings(),
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
        ready_flag=started,
    )
