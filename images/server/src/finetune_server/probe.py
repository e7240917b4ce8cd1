"""The probe: a server is ready when it completes a chat, not when its port is open."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from finetune_operator.api.outcome import StageFailure
from finetune_operator.api.run import RunConfig, load_run
from finetune_server.activity import PROBE_HEADER
from finetune_server.key import read_api_key

HOST = "127.0.0.1"
PORT = 8000
PATH = "/v1/chat/completions"

# A proxy set in the environment is for the outside, never for the pod itself.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def probe(path: Path, timeout: float, port: int = PORT) -> int:
    """Ask the server for one token; 0 where it gave one, else 1 with one line that says what was found."""
    try:
        run = load_run(path)
        fault = ask(run, timeout, port)
    except StageFailure as failure:
        fault = failure.message
    if fault is not None:
        print(f"not ready: {fault}", file=sys.stderr)
    return 0 if fault is None else 1


def ask(run: RunConfig, timeout: float, port: int) -> str | None:
    """What is wrong with the server's answer to a chat of one message; None where nothing is."""
    address = f"http://{HOST}:{port}{PATH}"
    body = {"model": run.name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}
    headers = {"Content-Type": "application/json", PROBE_HEADER: "1"}
    key = read_api_key(run)
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    try:
        with _open(request, timeout=timeout) as response:
            return _fault(response.read())
    except urllib.error.HTTPError as error:
        return f"{address} answered {error.code}: {error.read(300).decode(errors='replace')}"
    except TimeoutError:
        return f"{address} did not answer within {timeout:g} s"
    except OSError as error:
        return f"{address} cannot be reached: {getattr(error, 'reason', error)}"


def _fault(answer: bytes) -> str | None:
    try:
        parsed: Any = json.loads(answer)
        if parsed == {"busy": True}:  # answering somebody else, having answered the probe before
            return None
        produced = parsed["choices"][0]["message"], parsed["usage"]["completion_tokens"] > 0
    except (ValueError, LookupError, TypeError):
        return f"the answer is not a chat completion: {answer[:300].decode(errors='replace')}"
    return None if all(produced) else f"the completion is empty: {answer[:300].decode(errors='replace')}"
