"""What stands before the engine: which paths can be reached, with which key, and how much may be sent.

``transformers serve`` has no key and lets anybody load or unload models; this lets the OpenAI API through and nothing else.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune_server.activity import PROBE_HEADER, Activity
from finetune_server.request_check import fault

BODY_LIMIT = 8 * 2**20
"""Bytes of a request: room for any context window's text."""
BODY_SECONDS = 60
"""Time for a request to come: one that trickles in holds its connection no longer."""

_CHAT = "/v1/chat/completions"
_ENGINE = {("POST", _CHAT), ("POST", "/v1/completions")}
_MODELS = ("GET", "/v1/models")


class Guard:
    """ASGI middleware: allow-list, key and size limit, and the list of models, which is the one that is served."""

    open_routes: frozenset[tuple[str, str]] = frozenset({("GET", "/health")})
    """Those that take no key."""

    def __init__(self, app: ASGIApp, model: str, read_key: Callable[[], str | None]) -> None:
        self._app = app
        self._model = model
        self._read_key = read_key
        self._started = int(time.time())
        self._activity = Activity()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it with the OpenAI API's shape of an error."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._handle(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = (scope["method"], scope["path"])
        if route in self.open_routes:
            await self._app(scope, receive, send)
        elif route not in _ENGINE and route != _MODELS:
            await _error(404, f"{route[0]} {route[1]} is not served")(scope, receive, send)
        elif not self._authorised(Request(scope)):
            await _error(401, "a valid key is needed: Authorization: Bearer KEY, or X-Api-Key: KEY")(
                scope, receive, send
            )
        elif route == _MODELS:
            await self._models()(scope, receive, send)
        else:
            await self._forward(scope, receive, send)

    def _authorised(self, request: Request) -> bool:
        key = self._read_key()
        if key is None:
            return True
        return hmac.compare_digest(_shown_key(request).encode(), key.encode())

    def _models(self) -> JSONResponse:
        model = {"id": self._model, "object": "model", "created": self._started, "owned_by": "finetune-operator"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_probe = PROBE_HEADER in Request(scope).headers
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read(Request(scope, receive))
        except TimeoutError:
            await _error(408, f"the request did not come whole within {BODY_SECONDS} s")(scope, receive, send)
            return
        if body is None:
            await _error(413, f"the request is larger than {BODY_LIMIT} bytes")(scope, receive, send)
        elif wrong := fault(body, is_chat=scope["path"] == _CHAT):
            await _error(400, wrong)(scope, receive, send)
        elif is_probe and self._activity.is_busy():
            # Behind a long answer the probe would wait in line, and the pod would be taken out of its Service.
            await JSONResponse({"busy": True})(scope, receive, send)
        else:
            with self._activity.request():
                status = await _status_of(self._app, scope, _replay(body, receive), send)
            self._activity.has_answered |= is_probe and status == 200


def _shown_key(request: Request) -> str:
    """The key that the client shows; empty where it shows none.

    X-Api-Key too: the API server's proxy, through which `finetune chat` comes, keeps Authorization to itself.
    """
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    return bearer.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


async def _status_of(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> int:
    """Run the application; the status that it answered with."""
    status = 0

    async def watched(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        await send(message)

    await app(scope, receive, watched)
    return status


async def _read(request: Request) -> bytes | None:
    """The body; None where it is over the limit, whatever its header announced."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > BODY_LIMIT:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            return None
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body that was read, then whatever comes (the client's going away)."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


def _error(status: int, message: str) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, status, headers)
