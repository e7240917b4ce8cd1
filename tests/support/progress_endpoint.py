"""An operator on the loopback interface that takes progress reports."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support_server import running


class Operator(ThreadingHTTPServer):
    """Keeps what it is told. ``status`` is what it answers with; it holds answers back until ``let_go`` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posts: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.status = 200
        self.let_go = threading.Event()
        self.let_go.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/progress"


class _Handler(BaseHTTPRequestHandler):
    server: Operator

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.let_go.wait(60)
        self.server.posts.append(body["trainerStatus"])
        self.server.tokens.append(self.headers["Authorization"])
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def listening() -> Iterator[Operator]:
    """Run an operator while the block runs."""
    server = Operator()
    with running(server):
        try:
            yield server
        finally:
            server.let_go.set()


def metrics(post: dict[str, Any]) -> dict[str, str]:
    """The figures of a report by name."""
    return {metric["name"]: metric["value"] for metric in post["metrics"]}
