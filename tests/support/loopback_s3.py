"""An S3 store on the loopback interface (moto's server), and a relay in front of it that breaks off or spoils answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

from support_server import running

KEYS = {"AWS_ACCESS_KEY_ID": "AKIALOOPBACK", "AWS_SECRET_ACCESS_KEY": "secret"}
_NOT_PASSED_ON = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class LoopbackS3(ThreadingHTTPServer):
    """Passes every request on to moto."""

    daemon_threads = True

    def __init__(self, store: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.store = store
        self.requests: list[str] = []
        self.cut_from: int | None = None
        """Break off every answer that begins at this byte of an object or later, until set to None."""
        self.spoilt = ""
        """End of the key of an object whose first byte is changed on the way."""
        self.anonymous_only = False
        """Refuse every signed request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Store an object that everybody may read, past the relay."""
        self.client().put_object(Bucket=bucket, Key=key, Body=content, ACL="public-read")

    def client(self):
        host, port = self.store
        return boto3.client(
            "s3",
            endpoint_url=f"http://{host}:{port}",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )

    def put_folder(self, bucket: str, prefix: str, folder: Path) -> None:
        """Store every file below a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(bucket, f"{prefix}/{path.relative_to(folder)}", path.read_bytes())


@contextmanager
def serving_s3() -> Iterator[LoopbackS3]:
    """Run store and relay while the block runs; the bucket ``lake`` is there."""
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    try:
        with running(LoopbackS3(moto.get_host_and_port())) as relay:
            relay.client().create_bucket(Bucket="lake")
            yield relay
    finally:
        moto.stop()


class _Relay(BaseHTTPRequestHandler):
    server: LoopbackS3
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        self.server.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())

    def do_GET(self) -> None:
        self._relay()

    def do_HEAD(self) -> None:
        self._relay()

    def _relay(self) -> None:
        if self.server.anonymous_only and "Authorization" in self.headers:
            self._send(403, [("Content-Type", "application/xml")], _denied())
            return
        status, headers, body = self._ask()
        if self.server.spoilt and self.path.split("?")[0].endswith(self.server.spoilt) and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        self._send(status, headers, body)

    def _ask(self) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = HTTPConnection(*self.server.store)
        try:
            connection.request(self.command, self.path, headers=dict(self.headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            if name.lower() not in _NOT_PASSED_ON:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.log_request(status)
        start = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0]
        if self.command == "GET" and self.server.cut_from is not None and int(start) >= self.server.cut_from:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        if self.command != "HEAD":
            self.wfile.write(body)


def _denied() -> bytes:
    return b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
