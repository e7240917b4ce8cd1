"""HTTP answers, read as they come, and every way in which there is none as one line."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

from finetune_operator.cli.errors import CommandError

CONNECT_SECONDS = 10
_CONNECTION = re.compile(r"^<?\S*Connection(Pool)?\([^)]*\)>?: ")
TRY_AGAIN = frozenset({429, 500, 502, 503, 504})


class RefusedError(CommandError):
    """The server answered with an error status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(CommandError):
    """Nobody answered, or only that the time is bad: the same request may succeed later."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer whose body has not been read yet."""

    server: str
    response: urllib3.BaseHTTPResponse

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is a stream of server-sent events."""
        return str(self.response.headers.get("Content-Type", "")).startswith("text/event-stream")

    def json(self) -> dict[str, Any]:
        """The whole body as JSON."""
        with _broken_connections(self.server):
            parsed: dict[str, Any] = json.loads(self.response.data)
        return parsed

    def json_lines(self) -> Iterator[dict[str, Any]]:
        """One JSON object a line, as a watch sends them."""
        return (json.loads(line) for line in self.lines() if line)

    def lines(self) -> Iterator[str]:
        """The body's lines without their ends, each as soon as it is there."""
        rest = b""
        with contextlib.closing(self.response), _broken_connections(self.server):
            for part in self.response.stream(amt=None, decode_content=True):
                *whole, rest = (rest + part).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
        if rest:
            yield rest.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Any = None
    """Sent as JSON."""


Explain = Callable[[int, str], CommandError]
"""What an error status and the server's words mean to the user."""


def send(pool: urllib3.PoolManager, request: Request, explain: Explain, read_seconds: float | None) -> Answer:
    """Send a request; ``read_seconds`` of None waits for ever between two parts of the answer. Raises CommandError."""
    server = request.url.split("/", 3)[2]
    body = None if request.body is None else json.dumps(request.body)
    with _broken_connections(server):
        response = pool.request(
            request.method,
            request.url,
            headers=request.headers,
            body=body,
            preload_content=False,
            redirect=False,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
        )
        if not 200 <= response.status <= 299:
            text = _message(response.data)
            raise (
                UnreachableError(f"{server}: {text}")
                if response.status in TRY_AGAIN
                else explain(response.status, text)
            )
    return Answer(server, response)


def _message(body: bytes) -> str:
    text = body.decode(errors="replace")
    with contextlib.suppress(ValueError, AttributeError):
        parsed = json.loads(text)
        # Kubernetes' Status, FastAPI's errors, and OpenAI's, which may stand in an object of their own.
        text = str(parsed.get("message") or parsed.get("detail") or parsed.get("error", {}).get("message") or text)
    return " ".join(text.split())[:300]


@contextlib.contextmanager
def _broken_connections(server: str) -> Iterator[None]:
    try:
        yield
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise UnreachableError(f"cannot reach {server}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """The innermost reason in a few words: urllib3 wraps errors in errors and repeats the URL."""
    for inner in (getattr(error, "reason", None), *error.args):
        if isinstance(inner, BaseException):
            return _reason(inner)
    return _CONNECTION.sub("", " ".join(str(error).split()))
