"""The smallest OpenAI-compatible endpoint: `python tiny_endpoint.py PORT [KEY]`. It answers with what it was asked, and how."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Streams where it is asked to; wants the key where it was started with one."""

    key = ""

    def log_message(self, *words: object) -> None:
        """Say nothing: the tests look at stderr."""

    def do_GET(self) -> None:
        self.send_json(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        shown = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or self.headers.get("X-Api-Key")
        if self.path != "/v1/chat/completions":
            self.send_json(404, {"error": {"message": f"{self.path} is not served"}})
        elif self.key and shown != self.key:
            self.send_json(401, {"error": {"message": "a valid key is needed"}})
        elif body["stream"]:
            self.send_stream(answer_to(body).split(" "))
        else:
            message = {"role": "assistant", "content": answer_to(body)}
            self.send_json(200, {"choices": [{"message": message}]})

    def send_json(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_stream(self, words: list[str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for word in words:
            event = {"choices": [{"delta": {"content": f"{word} "}}]}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")


def answer_to(body: dict[str, Any]) -> str:
    """Who was asked, what, and after how many messages."""
    *earlier, last = body["messages"]
    system = "".join(message["content"] for message in earlier if message["role"] == "system")
    return f"{body['model']} heard {last['content']!r} after {len(earlier)} {system}".strip()


def serve(host: str, port: int, key: str = "") -> None:
    """Answer until the process is ended."""
    Handler.key = key
    ThreadingHTTPServer((host, port), Handler).serve_forever()


if __name__ == "__main__":
    serve("", int(sys.argv[1]), *sys.argv[2:])
