"""Contents of the volumes that the process node writes."""

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_devcluster.node import clock
from finetune_devcluster.node.api import ApiError
from finetune_devcluster.node.projected import Projections, VolumeError

POD: dict[str, Any] = {
    "metadata": {"name": "trainer", "namespace": "ml", "uid": "42", "labels": {"stage": "train"}},
    "spec": {"serviceAccountName": "runner", "containers": []},
}
OBJECTS: dict[str, dict[str, Any]] = {
    "configmaps/settings": {"data": {"a": "1", "b": "2"}, "binaryData": {"raw": base64.b64encode(b"\xff").decode()}},
    "secrets/hub": {"data": {"token": base64.b64encode(b"hf_x").decode()}},
}


class Server:
    """Answers reads from OBJECTS and counts the tokens it gives, each valid for `token_seconds`."""

    def __init__(self, token_seconds: float = 3600) -> None:
        self.token_seconds = token_seconds
        self.requests: list[dict[str, Any]] = []

    async def get(self, path: str) -> dict[str, Any]:
        found = OBJECTS.get("/".join(path.split("/")[-2:]))
        if found is None:
            raise ApiError(404, "not found")
        return found

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path == "/api/v1/namespaces/ml/serviceaccounts/runner/token"
        self.requests.append(body["spec"])
        expires = clock.rfc3339(datetime.now(UTC) + timedelta(seconds=self.token_seconds))
        return {"status": {"token": f"token-{len(self.requests)}", "expirationTimestamp": expires}}


def files(volume: dict[str, Any], server: Server | None = None) -> dict[str, tuple[bytes, int]]:
    projections = Projections(server or Server(), lambda: POD)  # type: ignore[arg-type]
    payload = asyncio.run(projections.payload(volume))
    return {name: (content.data, content.mode) for name, content in payload.items()}


def test_a_config_map_becomes_one_file_a_key() -> None:
    found = files({"configMap": {"name": "settings", "defaultMode": 0o444}})
    assert found == {"a": (b"1", 0o444), "b": (b"2", 0o444), "raw": (b"\xff", 0o444)}


def test_items_choose_keys_paths_and_modes() -> None:
    items = [{"key": "b", "path": "deep/b.txt", "mode": 0o400}]
    assert files({"configMap": {"name": "settings", "items": items}}) == {"deep/b.txt": (b"2", 0o400)}


def test_a_projected_volume_puts_all_its_sources_together() -> None:
    label = {"path": "stage", "fieldRef": {"fieldPath": "metadata.labels['stage']"}}
    sources = [
        {"secret": {"name": "hub"}},
        {"configMap": {"name": "settings", "items": [{"key": "a", "path": "a"}]}},
        {"downwardAPI": {"items": [label]}},
        {"configMap": {"name": "absent", "optional": True}},
    ]
    found = files({"projected": {"sources": sources, "defaultMode": 0o440}})
    assert found == {"token": (b"hf_x", 0o440), "a": (b"1", 0o440), "stage": (b"train", 0o440)}


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
        (
            {"secret": {"secretName": "hub", "items": [{"key": "no", "path": "x"}]}},
            r'secret "hub" has no key "no"; it has \[\'token\'\]',
        ),
        ({"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "spec.no"}}]}}, "downwardAPI x: "),
    ],
)
def test_what_is_missing_is_named(volume: dict[str, Any], message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        files(volume)


TOKEN = {"serviceAccountToken": {"path": "token", "audience": "progress", "expirationSeconds": 600}}


def test_a_token_is_asked_for_once_and_bound_to_the_pod() -> None:
    server = Server()
    projections = Projections(server, lambda: POD)  # type: ignore[arg-type]

    async def twice() -> list[bytes]:
        volume = {"projected": {"sources": [TOKEN]}}
        return [(await projections.payload(volume))["token"].data for _ in range(2)]

    assert asyncio.run(twice()) == [b"token-1", b"token-1"]
    (request,) = server.requests
    assert (request["audiences"], request["expirationSeconds"]) == (["progress"], 600)
    assert (request["boundObjectRef"]["kind"], request["boundObjectRef"]["uid"]) == ("Pod", "42")
    now = datetime.now(UTC).timestamp()
    assert projections.refresh_at == pytest.approx(now + 0.8 * 600, abs=5)


def test_a_token_close_to_its_end_is_replaced() -> None:
    server = Server(token_seconds=-1)
    projections = Projections(server, lambda: POD)  # type: ignore[arg-type]

    async def twice() -> list[bytes]:
        volume = {"projected": {"sources": [TOKEN]}}
        return [(await projections.payload(volume))["token"].data for _ in range(2)]

    assert asyncio.run(twice()) == [b"token-1", b"token-2"]
