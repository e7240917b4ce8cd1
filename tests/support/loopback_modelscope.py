"""ModelScope on the loopback interface: the part of its HTTP interface that the modelscope library downloads through."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from support_server import running

PAGE = 200


class LoopbackModelScope(ThreadingHTTPServer):
    """Serves ``folder/models/ORG/NAME`` and ``folder/datasets/ORG/NAME``; some organisations are refused as ModelScope does."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requests: list[str] = []
        self.token = ""
        """What a request for an organisation named ``private`` has to bring."""
        self.cut_after: int | None = None
        """Break the connection after so many bytes of a file, once."""
        self.spoilt = ""
        """Name of a file whose bytes are not those that the list tells the hash of."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def downloads(self, name: str) -> int:
        """How often a file was asked for."""
        return sum(f"FilePath={name}" in request for request in self.requests)


@contextmanager
def serving_modelscope(folder: Path) -> Iterator[LoopbackModelScope]:
    """Run it while the block runs."""
    with running(LoopbackModelScope(folder)) as server:
        yield server


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackModelScope
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        self.server.requests.append(f"{self.command} {unquote(self.path)} {self.headers.get('Range', '')}")

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        parts = unquote(address.path).strip("/").split("/")
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        if parts[:2] != ["api", "v1"] or parts[2] not in ("models", "datasets"):
            self._fail(404, "no such route")
            return
        self._answer(parts[2], "/".join(parts[3:5]), "/".join(parts[5:]), query)

    def _answer(self, kind: str, repository: str, route: str, query: dict[str, str]) -> None:
        folder = self.server.folder / kind / repository
        if repository.startswith("private/") and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._fail(403, "access denied")
        elif repository.startswith("broken/"):
            self._fail(500, "internal error")
        elif not folder.is_dir():
            self._fail(404, "record not found")
        elif not route:
            self._send({"Code": 200, "Success": True, "Data": {"Name": repository.split("/")[1]}})
        elif query.get("Revision") not in ("master", "v1.0"):
            self._fail(404, "revision not found")
        elif route == "repo":
            self._file(folder / query["FilePath"])
        elif route == ("repo/files" if kind == "models" else "repo/tree"):
            self._list(folder, query)
        else:
            self._fail(404, "no such route")

    def _list(self, folder: Path, query: dict[str, str]) -> None:
        entries = [_entry(path, folder) for path in sorted(folder.rglob("*"))]
        if "PageNumber" in query:
            size = int(query["PageSize"])
            start = (int(query["PageNumber"]) - 1) * size
            entries = entries[start : start + size]
        self._send({"Code": 200, "Success": True, "Data": {"Files": entries}})

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self._fail(404, "file not found")
            return
        content = path.read_bytes()
        if path.name == self.server.spoilt:
            content = bytes([content[0] ^ 1]) + content[1:]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self._write(content[start:])

    def _write(self, content: bytes) -> None:
        limit = self.server.cut_after
        if limit is not None and limit < len(content):
            self.server.cut_after = None
            self.wfile.write(content[:limit])
            self.close_connection = True
            return
        self.wfile.write(content)

    def _send(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, status: int, message: str) -> None:
        self._send({"Code": 10000000 + status, "Success": False, "Message": message}, status)


def _entry(path: Path, folder: Path) -> dict[str, object]:
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"Path": name, "Name": path.name, "Type": "tree", "Size": 0}
    content = path.read_bytes()
    facts = {"Size": len(content), "Sha256": hashlib.sha256(content).hexdigest()}
    return {"Path": name, "Name": path.name, "Type": "blob", "Revision": "abc", "IsLFS": False, **facts}
