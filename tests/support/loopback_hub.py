"""A hub on the loopback interface: the part of the Hugging Face hub's HTTP interface that downloads use."""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from support_server import running
from support_wait import eventually

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LoopbackHub(ThreadingHTTPServer):
    """Serves ``folder/models/ORG/NAME`` and ``folder/datasets/ORG/NAME``; some names are refused as the hub does."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requests: list[str] = []
        self.token = ""
        """What a request for an organisation named ``private`` has to bring."""
        self.cut_after: int | None = None
        """Break the connection after so many bytes of a file, once."""
        self.away_after: int | None = None
        """Like ``cut_after``, and then be away until this is set to None."""
        self.stalls_after: int | None = None
        """Send so many bytes of a file and then nothing, until this is set to None."""
        self.lists_private = False
        """Tell everybody what is in a private repository, as the hub does for gated ones."""
        self.spoilt = ""
        """Name of a file whose bytes are not those that the hub tells the hash of."""
        self.claimed: list[str] = []
        """Names that the hub lists beside the files that it has."""
        self.detours: dict[str, str] = {}
        """By the end of a path, the address that a request for it is redirected to."""
        self.echoes = False
        """Tell in every error what the request's Authorization was."""
        self.shown: list[tuple[str, str]] = []
        """(path, Authorization) of every request."""
        self.commit = COMMIT
        """What the branch main stands for."""

    @property
    def url(self) -> str:
        # A certificate bears a name
        host = "https://localhost" if isinstance(self.socket, ssl.SSLSocket) else "http://127.0.0.1"
        return f"{host}:{self.server_address[1]}"


@contextmanager
def serving(folder: Path) -> Iterator[LoopbackHub]:
    """Run a hub while the block runs."""
    with running(LoopbackHub(folder)) as hub:
        yield hub


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        self.server.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.shown.append((self.path, self.headers.get("Authorization", "")))
        if detour := next(
            (to for end, to in self.server.detours.items() if urlsplit(self.path).path.endswith(end)), None
        ):
            self.send_response(302)
            self.send_header("Location", detour)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.server.away_after == 0:
            self._error(503, "")
            return
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[0] == "cdn":
            self._send_content(self.server.folder / "/".join(parts[1:]))
        elif parts[0] == "api":
            self._describe(parts[1], "/".join(parts[2:4]), parts[4:])
        else:
            kind = parts.pop(0) if parts[0] == "datasets" else "models"
            self._send_file(kind, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def _refused(self, repository: str, revision: str, *, lists: bool = False) -> bool:
        is_open = lists and self.server.lists_private
        if (
            repository.startswith("private/")
            and not is_open
            and self.headers.get("Authorization") != f"Bearer {self.server.token}"
        ):
            self._error(401, "RepoNotFound")
        elif repository.startswith("gated/"):
            self._error(403, "GatedRepo")
        elif repository.startswith("broken/"):
            self._error(503, "")
        elif revision not in ("main", self.server.commit):
            self._error(404, "RevisionNotFound")
        else:
            return False
        return True

    def _describe(self, kind: str, repository: str, rest: list[str]) -> None:
        folder = self.server.folder / kind / repository
        revision = rest[1] if len(rest) > 1 else "main"
        if self._refused(repository, revision, lists=True):
            return
        if not folder.is_dir():
            self._error(404, "RepoNotFound")
            return
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        if rest and rest[0] == "tree":
            self._json([{"type": "file", "path": name, **_facts(folder / name)} for name in names])
        else:
            siblings = [_sibling(folder, name) for name in names]
            siblings += [{"rfilename": name} for name in self.server.claimed]
            self._json({"id": repository, "sha": self.server.commit, "siblings": siblings})

    def _send_file(self, kind: str, repository: str, revision: str, name: str) -> None:
        path = self.server.folder / kind / repository / name
        if self._refused(repository, revision):
            return
        if not path.is_file():
            self._error(404, "EntryNotFound")
            return
        if _is_lfs(name):
            self._redirect(path)
        else:
            self._send_content(path)

    def _redirect(self, path: Path) -> None:
        """As the hub answers for Git LFS: the file lies on another server, its hash is told here."""
        self.send_response(302)
        self.send_header("Location", f"{self.server.url}/cdn/{path.relative_to(self.server.folder)}")
        self.send_header("X-Linked-ETag", f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"')
        self.send_header("X-Linked-Size", str(path.stat().st_size))
        self.send_header("X-Repo-Commit", self.server.commit)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_content(self, path: Path) -> None:
        content = path.read_bytes()
        if path.name == self.server.spoilt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.server.commit)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            self._write(content[start:])

    def _write(self, content: bytes) -> None:
        stall = self.server.stalls_after
        if stall is not None and stall < len(content):
            self.wfile.write(content[:stall])
            self.wfile.flush()
            eventually(lambda: self.server.stalls_after is None)
            self.close_connection = True
            return
        limit = self.server.cut_after if self.server.away_after is None else self.server.away_after
        if limit is not None and limit < len(content):
            self.server.cut_after, self.server.away_after = None, None if self.server.away_after is None else 0
            self.wfile.write(content[:limit])
            self.close_connection = True
            return
        self.wfile.write(content)

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        said = self.headers.get("Authorization", "") if self.server.echoes else ""
        if said:
            self.send_header("X-Error-Message", f"you sent {said}")
        body = json.dumps({"error": said}).encode() if said else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _sibling(folder: Path, name: str) -> dict[str, object]:
    content = (folder / name).read_bytes()
    facts: dict[str, object] = {"rfilename": name, "size": len(content)}
    if not _is_lfs(name):
        return facts
    return facts | {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}}


def _is_lfs(name: str) -> bool:
    return name.endswith(".safetensors")


def _facts(path: Path) -> dict[str, object]:
    return {"size": path.stat().st_size, "oid": hashlib.sha1(path.read_bytes()).hexdigest()}
