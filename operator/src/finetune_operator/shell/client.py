"""Requests to the API server: plain dicts in and out, every refusal an ApiError, every request with a time limit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from finetune_operator.shell import errors

TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)
PAGE_SIZE = 500

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
# The API server takes any YAML here, and JSON is YAML
APPLY_PATCH = "application/apply-patch+yaml"

Object = dict[str, Any]
Query = Mapping[str, str | int | bool]


class Api:
    """One connection pool to the API server. The official client brings credentials, proxies and TLS; its typed models
    would refuse enum values of newer servers, and are not used."""

    def __init__(self, configuration: Configuration) -> None:
        self._client = ApiClient(configuration)
        self._client.user_agent = "finetune-operator"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def get(self, path: str) -> Object:
        """One object. Raises ApiError."""
        return await self._json("GET", path)

    async def find(self, path: str) -> Object | None:
        """One object, or None where it does not exist. Raises ApiError."""
        try:
            return await self.get(path)
        except errors.ApiError as error:
            if error.is_absent:
                return None
            raise

    async def pages(self, path: str, query: Query | None = None) -> AsyncIterator[Object]:
        """The objects of a collection, read in pages. Raises ApiError."""
        more: dict[str, str | int | bool] = dict(query or {}, limit=PAGE_SIZE)
        while True:
            page = await self._json("GET", path, more)
            for item in page.get("items", []):
                yield item
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            more["continue"] = token

    async def list(self, path: str, query: Query | None = None) -> list[Object]:
        """All objects of a collection. Raises ApiError."""
        return [item async for item in self.pages(path, query)]

    async def text(self, path: str, query: Query | None = None) -> str:
        """An answer that is not JSON, such as a log. Raises ApiError."""
        return (await self._send("GET", path, query, None, JSON)).decode(errors="replace")

    async def create(self, path: str, body: Object, query: Query | None = None) -> Object:
        """POST to a collection. Raises ApiError."""
        return await self._json("POST", path, query, body)

    async def patch(self, path: str, body: Object, content_type: str, query: Query | None = None) -> Object:
        """PATCH of one object. Raises ApiError."""
        return await self._json("PATCH", path, query, body, content_type)

    async def delete(self, path: str, options: Object) -> None:
        """DELETE of one object. Raises ApiError."""
        await self._json("DELETE", path, None, options)

    async def _json(
        self, method: str, path: str, query: Query | None = None, body: Object | None = None, content_type: str = JSON
    ) -> Object:
        answer = await self._send(method, path, query, body, content_type)
        parsed: Object = json.loads(answer)
        return parsed

    async def _send(self, method: str, path: str, query: Query | None, body: Object | None, content_type: str) -> bytes:
        request = errors.Request(method, path)
        try:
            prepared = await self._client.param_serialize(
                method,
                path,
                query_params=[
                    (key, str(value).lower() if isinstance(value, bool) else value)
                    for key, value in (query or {}).items()
                ],
                header_params={"Accept": "*/*" if path.endswith("/log") else JSON, "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(*prepared, _request_timeout=TIMEOUT)
            content = bytes(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise errors.no_answer(request, error) from error
        if not 200 <= response.status <= 299:
            raise errors.api_error(request, response.status, content, response.headers.get("Retry-After"))
        return content
