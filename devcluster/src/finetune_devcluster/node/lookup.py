"""Reads the objects that a pod's spec refers to, fresh from the API server."""

from __future__ import annotations

import base64

from finetune_devcluster.node.api import Api, ApiError
from finetune_devcluster.node.environment import Sources
from finetune_devcluster.node.settings import Object


async def find(api: Api, path: str) -> Object | None:
    """The object, or None when there is none of that name."""
    try:
        return await api.get(path)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


async def object_data(api: Api, kind: str, namespace: str, name: str) -> dict[str, bytes] | None:
    """The entries of a ConfigMap (`configmaps`) or Secret (`secrets`), or None when it does not exist."""
    found = await find(api, f"/api/v1/namespaces/{namespace}/{kind}/{name}")
    if found is None:
        return None
    data = found.get("data") or {}
    if kind == "secrets":
        return {key: base64.b64decode(value) for key, value in data.items()}
    binary = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
    return {key: value.encode() for key, value in data.items()} | binary


async def environment_sources(api: Api, namespace: str, container: Object) -> Sources:
    """All ConfigMaps and Secrets that the container's environment names."""
    config_maps = {name: await _texts(api, "configmaps", namespace, name) for name in _names(container, "configMap")}
    secrets = {name: await _texts(api, "secrets", namespace, name) for name in _names(container, "secret")}
    return Sources(config_map=config_maps.get, secret=secrets.get)


async def _texts(api: Api, kind: str, namespace: str, name: str) -> dict[str, str] | None:
    data = await object_data(api, kind, namespace, name)
    return None if data is None else {key: value.decode(errors="replace") for key, value in data.items()}


def _names(container: Object, kind: str) -> set[str]:
    whole = [source.get(f"{kind}Ref") for source in container.get("envFrom") or []]
    single = [(entry.get("valueFrom") or {}).get(f"{kind}KeyRef") for entry in container.get("env") or []]
    return {reference["name"] for reference in [*whole, *single] if reference}
