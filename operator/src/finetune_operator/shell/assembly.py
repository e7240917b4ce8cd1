"""Puts the parts together and runs them in one event loop until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any

from aiohttp import web
from kubernetes.aio.client import Configuration

from finetune_operator.api.base import KIND
from finetune_operator.settings import Settings
from finetune_operator.shell import certificate, credentials, paths, probes, watching
from finetune_operator.shell.children import Children
from finetune_operator.shell.client import Api
from finetune_operator.shell.errors import ApiError
from finetune_operator.shell.events import Events
from finetune_operator.shell.gather import Gatherer, utc_now
from finetune_operator.shell.logtail import LogTails
from finetune_operator.shell.metrics import Metrics
from finetune_operator.shell.progress import ProgressEndpoint
from finetune_operator.shell.queue import WorkQueue
from finetune_operator.shell.reconcile import Reconciler
from finetune_operator.shell.reports import Reports
from finetune_operator.shell.tokens import TokenChecker
from finetune_operator.shell.workers import Resync, work

logger = logging.getLogger(__name__)

_SECONDS_TO_DRAIN = 1.0
_SECONDS_BETWEEN_LOOKS = 5.0
_MISSED_RESYNCS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the operator listens. An empty host is every address of the machine or pod."""

    host: str = ""
    http_port: int = 8080


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """All parts of a running operator."""

    settings: Settings
    addresses: Addresses
    queue: WorkQueue = field(default_factory=WorkQueue)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, kubeconfig: str | None) -> None:
        """Run until SIGTERM or SIGINT. Raises ConfigException without credentials, and what kopf cannot recover from."""
        configuration = await credentials.load(kubeconfig)
        self._stop_on_signals()
        async with AsyncExitStack() as stack:
            api = await stack.enter_async_context(Api(configuration))
            reports = Reports()
            metrics = Metrics(lambda: len(self.queue), lambda key: reports.silence(key, utc_now()))
            resync = Resync(api, self.queue, self.settings.namespaces, self.settings.resync_seconds)
            await self._serve_probes(stack, resync, metrics)
            reconciler = await self._parts(stack, api, metrics, reports)
            if not await self._jobs_can_be_listed(api):
                return
            logger.info("watching FineTuneJobs in %s", ", ".join(self.settings.namespaces) or "all namespaces")
            async with asyncio.TaskGroup() as group:
                loops = [resync.run(), *(work(self.queue, reconciler, metrics) for _ in range(self.settings.workers))]
                tasks = [group.create_task(loop) for loop in loops]
                await self._watch(configuration, tasks)

    async def _watch(self, configuration: Configuration, tasks: list[asyncio.Task[None]]) -> None:
        async def end_work() -> None:
            # kopf has a task that waits for the flag, and would give it 5 s more
            self.stop.set()
            # Whatever a reconcile leaves half done, the next start goes on with
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_SECONDS_TO_DRAIN)

        await watching.watch(configuration, self.queue, self.settings.namespaces, self.stop, self.started, end_work)

    async def _parts(self, stack: AsyncExitStack, api: Api, metrics: Metrics, reports: Reports) -> Reconciler:
        namespace = credentials.own_namespace()
        dns_names = certificate.service_names(self.settings.progress.service, namespace)
        serving = certificate.make(dns_names, utc_now())
        endpoint = ProgressEndpoint(TokenChecker(api), reports, self.queue, metrics, utc_now)
        await _serve(stack, endpoint.application(), self.addresses.host, self.settings.progress.port, serving.context())
        return Reconciler(
            api=api,
            gatherer=Gatherer(
                api=api,
                logs=LogTails(api, self.settings.log_lines),
                reports=reports,
                certificate=serving.authority.decode(),
                operator_namespace=namespace,
                cache_claim=self.settings.cache.claim,
            ),
            children=Children(api),
            events=Events(api, os.environ.get("POD_ID") or socket.gethostname()),
            settings=self.settings,
            metrics=metrics,
        )

    async def _serve_probes(self, stack: AsyncExitStack, resync: Resync, metrics: Metrics) -> None:
        def unhealthy() -> str:
            late = resync.silence > _MISSED_RESYNCS * self.settings.resync_seconds
            return f"the resync hangs since {resync.silence:.0f} s" if late else ""

        def unready() -> str:
            return "" if self.started.is_set() else "the watches have not started"

        application = probes.application(unhealthy, unready, metrics)
        await _serve(stack, application, self.addresses.host, self.addresses.http_port)

    async def _jobs_can_be_listed(self, api: Api) -> bool:
        """Wait until the CRD is there, as kopf looks for it only once; False where the operator was told to stop."""
        namespace = self.settings.namespaces[0] if self.settings.namespaces else None
        while not self.stop.is_set():
            try:
                await api.list(paths.collection(KIND, namespace), {"limit": 1})
                return True
            except ApiError as error:
                hint = "; install the CRD (crds/finetunejobs.yaml)" if error.is_absent else ""
                logger.warning("FineTuneJobs cannot be listed yet: %s%s", error, hint)
            await _wait(self.stop.wait(), _SECONDS_BETWEEN_LOOKS)
        return False

    def _stop_on_signals(self) -> None:
        # kopf puts its own handlers in their place once it runs
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop.set)


async def _serve(
    stack: AsyncExitStack, application: web.Application, host: str, port: int, tls: SSLContext | None = None
) -> None:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SECONDS_TO_DRAIN)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, host or None, port, ssl_context=tls)
    await site.start()


async def _wait(flag: Coroutine[Any, Any, object], seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await flag
