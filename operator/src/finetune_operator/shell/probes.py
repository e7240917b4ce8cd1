"""The plain HTTP server for the kubelet and Prometheus: /healthz, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from finetune_operator.shell.metrics import Metrics

Problem = Callable[[], str]
"""What is wrong now; empty where nothing is."""


def application(unhealthy: Problem, unready: Problem, metrics: Metrics) -> web.Application:
    """The web application. A probe answers 200 `ok`, or 503 and the problem."""

    async def healthz(_: web.Request) -> web.Response:
        return _verdict(unhealthy())

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(unready())

    async def figures(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    made = web.Application()
    made.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", figures)])
    return made


def _verdict(problem: str) -> web.Response:
    return web.Response(text=problem or "ok", status=503 if problem else 200)
