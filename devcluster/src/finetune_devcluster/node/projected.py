"""Contents of the volumes that the node writes itself: configMap, secret, downwardAPI and projected."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from finetune_devcluster.node import clock, fields
from finetune_devcluster.node.api import Api, ApiError
from finetune_devcluster.node.atomic_files import FileContent, Payload
from finetune_devcluster.node.lookup import object_data
from finetune_devcluster.node.settings import Object

KINDS = ("configMap", "secret", "downwardAPI", "projected")

_DEFAULT_MODE = 0o644
_DEFAULT_TOKEN_SECONDS = 3600
_REFRESH_AT = 0.8
"""Share of a token's life after which it is replaced, as the kubelet does it."""


class VolumeError(Exception):
    """The volume can not be set up yet; it is tried again."""


@dataclass
class Token:
    text: str
    refresh_at: float


@dataclass
class Projections:
    """Builds the payloads of one pod's volumes. `pod` gives the pod as it is now."""

    api: Api
    pod: Callable[[], Object]
    _tokens: dict[tuple[str, int], Token] = field(default_factory=dict)

    @property
    def refresh_at(self) -> float | None:
        """When the first token has to be replaced (time.time()), if there is any."""
        return min((token.refresh_at for token in self._tokens.values()), default=None)

    async def payload(self, volume: Object) -> Payload:
        """The files of the volume.

        Raises VolumeError when an object or key that is not optional is missing.
        """
        kind = next(kind for kind in KINDS if kind in volume)
        source = volume[kind]
        mode = source.get("defaultMode", _DEFAULT_MODE)
        sources = source.get("sources") or [] if kind == "projected" else [{kind: source}]
        result: Payload = {}
        for entry in sources:
            result.update(await self._source(entry, mode))
        return result

    async def _source(self, entry: Object, mode: int) -> Payload:
        if source := entry.get("configMap"):
            return await self._from_object("configmaps", source, source.get("name", ""), mode)
        if source := entry.get("secret"):
            return await self._from_object("secrets", source, source.get("secretName") or source.get("name", ""), mode)
        if source := entry.get("serviceAccountToken"):
            return {source["path"]: FileContent((await self._token(source)).encode(), mode)}
        if "downwardAPI" in entry:
            return self._downward(entry["downwardAPI"].get("items") or [], mode)
        raise VolumeError(f"projected source {sorted(entry)} is not supported by the process node")

    async def _from_object(self, kind: str, source: Object, name: str, mode: int) -> Payload:
        namespace = self.pod()["metadata"]["namespace"]
        data = await object_data(self.api, kind, namespace, name)
        optional = source.get("optional", False)
        if data is None:
            if optional:
                return {}
            raise VolumeError(f'{kind.removesuffix("s")} "{name}" not found')
        if not source.get("items"):
            return {key: FileContent(value, mode) for key, value in data.items()}
        return _items(data, source["items"], mode, optional, f'{kind.removesuffix("s")} "{name}"')

    def _downward(self, items: list[Object], mode: int) -> Payload:
        return {
            item["path"]: FileContent(self._downward_value(item).encode(), item.get("mode", mode)) for item in items
        }

    def _downward_value(self, item: Object) -> str:
        try:
            if reference := item.get("fieldRef"):
                return fields.field_value(self.pod(), reference["fieldPath"])
            return fields.resource_value(self.pod(), {}, item["resourceFieldRef"])
        except (fields.FieldError, ValueError) as error:
            raise VolumeError(f"downwardAPI {item['path']}: {error}") from error

    async def _token(self, source: Object) -> str:
        audience = source.get("audience") or ""
        seconds = source.get("expirationSeconds") or _DEFAULT_TOKEN_SECONDS
        known = self._tokens.get((audience, seconds))
        if known and time.time() < known.refresh_at:
            return known.text
        self._tokens[audience, seconds] = fresh = await self._request_token(audience, seconds)
        return fresh.text

    async def _request_token(self, audience: str, seconds: int) -> Token:
        pod = self.pod()
        metadata, account = pod["metadata"], pod["spec"].get("serviceAccountName") or "default"
        reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        spec: Object = {"expirationSeconds": seconds, "boundObjectRef": reference}
        if audience:
            spec["audiences"] = [audience]
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        try:
            answer = await self.api.create(path, body)
        except ApiError as error:
            raise VolumeError(f"token of service account {account!r}: {error}") from error
        asked_at = time.time()
        life = clock.parse(answer["status"]["expirationTimestamp"]).timestamp() - asked_at
        return Token(answer["status"]["token"], asked_at + min(life, seconds) * _REFRESH_AT)


def _items(data: dict[str, bytes], items: list[Object], mode: int, optional: bool, what: str) -> Payload:
    result: Payload = {}
    for item in items:
        if item["key"] in data:
            result[item["path"]] = FileContent(data[item["key"]], item.get("mode", mode))
        elif not optional:
            raise VolumeError(f'{what} has no key "{item["key"]}"; it has {sorted(data)}')
    return result
