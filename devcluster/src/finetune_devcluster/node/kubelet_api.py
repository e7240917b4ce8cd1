"""The part of the kubelet's HTTPS API that the control plane needs: container logs."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web

from finetune_devcluster.node import clock, logs
from finetune_devcluster.node.logs import LogOptions
from finetune_devcluster.node.pod_worker import PodWorker
from finetune_devcluster.node.settings import KUBELET_PORT, Object, Settings
from finetune_devcluster.node.states import ContainerRecord, Running, Waiting

_NOT_DONE = "the process node does not do {what}: look into a pod with kubectl logs, or with nsenter on its machine\n"

Find = Callable[[str, str], PodWorker | None]
"""The worker of a pod by namespace and name."""


class KubeletApi:
    def __init__(self, settings: Settings, find: Find, pods: Callable[[], list[Object]]) -> None:
        self._settings = settings
        self._find = find
        self._pods = pods
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/pods", self._list_pods)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for what in ("exec", "attach", "portForward"):
            app.router.add_route("*", f"/{what}/{{rest:.*}}", self._not_done)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.host_ip, KUBELET_PORT, ssl_context=self._tls())
        await site.start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self._settings.client_ca))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self._settings.tls_cert, self._settings.tls_key)
        return context

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _list_pods(self, _: web.Request) -> web.Response:
        return web.json_response({"apiVersion": "v1", "kind": "PodList", "items": self._pods()})

    async def _not_done(self, request: web.Request) -> web.Response:
        return web.Response(status=501, text=_NOT_DONE.format(what=request.path.split("/")[1]))

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        worker, record = self._container(request)
        previous = request.query.get("previous") == "true"
        path = _log_path(worker, record, previous)
        run = record.restart_count

        def ended() -> bool:
            return previous or record.restart_count != run or not isinstance(record.state, Running)

        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for chunk in logs.read(path, _options(request), ended):
            await response.write(chunk)
        await response.write_eof()
        return response

    def _container(self, request: web.Request) -> tuple[PodWorker, ContainerRecord]:
        names = request.match_info
        worker = self._find(names["namespace"], names["pod"])
        if worker is None:
            raise web.HTTPNotFound(text=f'pod "{names["namespace"]}/{names["pod"]}" is not on this node\n')
        for record in worker.records:
            if record.name == names["container"]:
                return worker, record
        raise web.HTTPNotFound(text=f'pod "{names["pod"]}" has no container "{names["container"]}"\n')


def _log_path(worker: PodWorker, record: ContainerRecord, previous: bool) -> Path:
    context = worker.context
    path = context.log_file(record, previous=previous)
    pod, name = context.pod["metadata"]["name"], record.name
    if path.exists():
        return path
    if previous:
        text = f'previous terminated container "{name}" in pod "{pod}" not found'
    elif isinstance(record.state, Waiting):
        earlier = context.log_file(record, previous=True)
        if earlier.exists():
            return earlier
        text = f'container "{name}" in pod "{pod}" is waiting to start: {record.state.reason}'
    else:
        text = f'container "{name}" in pod "{pod}" has no log'
    raise web.HTTPBadRequest(text=text)


def _options(request: web.Request) -> LogOptions:
    query = request.query
    since = None
    if seconds := query.get("sinceSeconds"):
        since = datetime.now(UTC) - timedelta(seconds=int(seconds))
    elif time := query.get("sinceTime"):
        since = clock.parse(time)
    return LogOptions(
        follow=query.get("follow") == "true",
        timestamps=query.get("timestamps") == "true",
        tail_lines=int(query["tailLines"]) if "tailLines" in query else None,
        limit_bytes=int(query["limitBytes"]) if "limitBytes" in query else None,
        since=since,
    )
