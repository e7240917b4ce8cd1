"""An HTTP server on loopback that answers as an API server was seen to answer, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from kubernetes.aio.client import Configuration

from finetune_operator.shell.client import Api

Answer = tuple[int, Any]


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: Mapping[str, str]
    content_type: str
    body: Any


@dataclass
class ScriptedApi:
    """Answers by method and path, text as text and all else as JSON; what is not scripted does not exist."""

    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def writes(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.method != "GET"]

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked.append(
            Asked(request.method, request.path, dict(request.query), request.content_type, json.loads(body or b"null"))
        )
        status, content = self.answers.get((request.method, request.path), (404, refusal("NotFound", "no such object")))
        if isinstance(content, str):
            return web.Response(text=content, status=status, headers=self.headers)
        return web.json_response(content, status=status, headers=self.headers)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Api]:
        """The operator's own client, talking to this server."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            configuration = Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
            async with Api(configuration) as api:
                yield api
        finally:
            await runner.cleanup()


def refusal(reason: str, message: str) -> dict[str, Any]:
    """A Status object, the body of a refusal."""
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
