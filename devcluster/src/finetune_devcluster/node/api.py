"""A small async client of the Kubernetes API that speaks plain JSON objects."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import aiohttp

from finetune_devcluster.node.kubeconfig import Kubeconfig
from finetune_devcluster.node.settings import Object

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30)
_WATCH_SECONDS = 240


class ApiError(Exception):
    """The API server answered with an error; `status` is the HTTP code, 410 for an expired watch."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError)
"""What a request raises while the API server is away."""

API_FAILURES = (ApiError, *UNREACHABLE)


class Api:
    def __init__(self, config: Kubeconfig) -> None:
        self._server = config.server
        headers = {"Authorization": f"Bearer {config.token}"} if config.token else {}
        connector = aiohttp.TCPConnector(ssl=config.ssl_context(), limit=0)
        self._session = aiohttp.ClientSession(connector=connector, headers=headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str, **params: str) -> Object:
        return await self._request("GET", path, params=params)

    async def create(self, path: str, body: Object) -> Object:
        return await self._request("POST", path, body=body)

    async def replace(self, path: str, body: Object) -> Object:
        return await self._request("PUT", path, body=body)

    async def patch(self, path: str, body: Object, content_type: str = MERGE_PATCH) -> Object:
        return await self._request("PATCH", path, body=body, content_type=content_type)

    async def delete(self, path: str, body: Object | None = None) -> Object:
        return await self._request("DELETE", path, body=body)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        data = None if body is None else json.dumps(body).encode()
        async with self._session.request(
            method,
            self._server + path,
            params=params,
            data=data,
            headers={"Content-Type": content_type},
            timeout=_REQUEST_TIMEOUT,
        ) as response:
            return await _decode(response)

    async def watch(self, path: str, **params: str) -> AsyncIterator[Object]:
        """The events after `resourceVersion`, until the server ends the watch (it does so after minutes).

        Raises ApiError(410) when the version is too old.
        """
        query = params | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_WATCH_SECONDS + 10)
        async with self._session.get(self._server + path, params=query, timeout=timeout) as response:
            if response.status >= 400:
                await _decode(response)
            async for line in _lines(response):
                event: Object = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiError(status.get("code", 500), status.get("message", "watch failed"))
                yield event


async def _decode(response: aiohttp.ClientResponse) -> Object:
    text = await response.text()
    if response.status < 400:
        decoded: Object = json.loads(text)
        return decoded
    raise ApiError(response.status, _message(text))


def _message(text: str) -> str:
    try:
        body: Any = json.loads(text)
    except ValueError:
        return text.strip()
    return str(body.get("message", text)) if isinstance(body, dict) else text


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    # aiohttp's own line reader gives up on lines over 64 KiB; one object may hold more.
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
