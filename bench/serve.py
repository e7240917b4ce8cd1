"""Answers of a tuned model: this project's server over its HTTP API, and transformers' own `generate`, in one run.

    python bench/serve.py --out bench/results/DATE-CARD-serve.jsonl [--shape 7b]
    python bench/serve.py --shape tiny --out /tmp/rehearsal.jsonl          # on the CPU

The server is `finetune-server serve` with engine Transformers: once with a merged model and once with the base model
and an adapter of rank 8 beside it, both with random weights (a merged model is a model like its base, and is read from
the base's files here). `generate` runs in a process of its own on the same merged model and prompts. Measured are the
time of an answer of one token, tokens a second of a longer answer, and of several at a time: requests that come at once
to the server, a batch to `generate`. Prints and appends a JSON line a way, each figure the median of the repetitions.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import machine
import merge
import windows
import workload
from processes import BenchError, own_environment, run

HERE = Path(__file__).parent
AT_ONCE = 8
WORDS = 120
"""Of a question; a word is a token."""
SECONDS_TO_START = 300.0
_SECONDS_BETWEEN_LOOKS = 0.1
PACKAGES = ("torch", "transformers", "peft", "uvicorn", "fastapi")
NAME = "bench"

Answer = Callable[[list[str], int], int]
"""Answers questions at once with so many tokens each at most; returns how many came."""


def main() -> None:
    """Make the model, measure each way in turn."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="finetune-serve-", dir=options.folder) as name:
        folder = Path(name)
        device = "cuda" if machine.card_field("name") and options.shape != "tiny" else "cpu"
        run([sys.executable, str(HERE / "train.py"), "--write-model", str(folder / "model"), options.shape])
        merge.write_adapter(folder / "adapter", folder / "model", options.shape)
        ways = {"server, merged": "Merged", "server, adapter": "Adapter", "generate": None}
        for way, mode in ways.items():
            about = {"bench": "serve", "way": way, "shape": options.shape, "device": device}
            about |= {**machine.about(PACKAGES), "tokens": options.tokens, "at_once": AT_ONCE}
            try:
                found = _of_server(folder, mode, device, options) if mode else _of_generate(folder, device, options)
            except BenchError as error:
                found = {"error": str(error)}
            _tell({**about, **found}, options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines are added to this file")
    parser.add_argument("--shape", choices=workload.SHAPES, default="7b")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    return parser.parse_args()


def questions() -> list[str]:
    """As many as are asked at once, each another one."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [" ".join(letters[(place * (number + 1)) % 26] for place in range(WORDS)) for number in range(AT_ONCE)]


def figures(answer: Answer, tokens: int, repetitions: int) -> dict[str, Any]:
    """The three figures, each measured so often after one answer that does not count."""
    asked = questions()
    answer(asked[:1], tokens)
    first = [_timed(answer, asked[:1], 1)[1] for _ in range(repetitions)]
    single = [_pace(*_timed(answer, asked[:1], tokens)) for _ in range(repetitions)]
    several = [_pace(*_timed(answer, asked, tokens)) for _ in range(repetitions)]
    return {
        "first_token_seconds": round(median(first), 4),
        "first_token_seconds_each": [round(seconds, 4) for seconds in first],
        "tokens_per_second": round(median(single), 2),
        "tokens_per_second_each": [round(pace, 2) for pace in single],
        "spread": windows.spread(single),
        "tokens_per_second_at_once": round(median(several), 2),
        "tokens_per_second_at_once_each": [round(pace, 2) for pace in several],
    }


def _timed(answer: Answer, asked: list[str], tokens: int) -> tuple[int, float]:
    began = time.monotonic()
    made = answer(asked, tokens)
    return made, time.monotonic() - began


def _pace(made: int, seconds: float) -> float:
    return made / seconds


def _of_server(folder: Path, mode: str, device: str, options: argparse.Namespace) -> dict[str, Any]:
    with _serving(folder, mode, device) as (address, ready_seconds):

        def ask(question: str, tokens: int) -> int:
            messages = [{"role": "user", "content": question}]
            body = {"model": NAME, "messages": messages, "max_tokens": tokens, "temperature": 0}
            return int(_post(address, body)["usage"]["completion_tokens"])

        def answer(asked: list[str], tokens: int) -> int:
            with ThreadPoolExecutor(len(asked)) as threads:
                return sum(threads.map(lambda question: ask(question, tokens), asked))

        return {"ready_seconds": round(ready_seconds, 1), **figures(answer, options.tokens, options.repetitions)}


@contextmanager
def _serving(folder: Path, mode: str, device: str) -> Iterator[tuple[str, float]]:
    """A running server: its address, and the seconds from its start to its first answer."""
    root = folder / f"job-{mode}"
    run_file = _write_run(root, folder, mode, device)
    port = _free_port()
    command = [sys.executable, "-m", "finetune_server.main", "serve", "--run", str(run_file)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    began = time.monotonic()
    log = root / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=own_environment(), stdout=output, stderr=subprocess.STDOUT)
    try:
        _await_answer(process, run_file, port, log)
        yield f"http://127.0.0.1:{port}/v1/chat/completions", time.monotonic() - began
    finally:
        process.kill()
        process.wait()


def _write_run(root: Path, folder: Path, mode: str, device: str) -> Path:
    """The layout of a job's volume: base model, adapter and merged model of a job that is to be served."""
    root.mkdir()
    for name, target in {"base": "model", "adapter": "adapter", "merged": "model"}.items():
        (root / name).symlink_to(folder / target)
    spec = {
        "model": {"source": f"file://{folder}/model"},
        "datasets": [{"source": "file:///none"}],
        "method": "LoRA",
        "serving": {"engine": "Transformers", "mode": mode, "gpus": 1 if device == "cuda" else 0},
    }
    file = root / "run.json"
    file.write_text(json.dumps({"name": NAME, "uid": NAME, "root": str(root), "spec": spec}))
    return file


def _await_answer(process: subprocess.Popen[bytes], run_file: Path, port: int, log: Path) -> None:
    from finetune_operator.api.run import load_run
    from finetune_server.probe import ask

    job = load_run(run_file)
    deadline = time.monotonic() + SECONDS_TO_START
    while ask(job, SECONDS_TO_START, port) is not None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError("the server did not come to answer", log.read_text(errors="replace"))
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _post(address: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)  # noqa: S310 -- loopback
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=600) as response:
        found: dict[str, Any] = json.load(response)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _of_generate(folder: Path, device: str, options: argparse.Namespace) -> dict[str, Any]:
    asked = {"model": str(folder / "model"), "device": device}
    asked |= {"tokens": options.tokens, "repetitions": options.repetitions}
    output = run([sys.executable, str(HERE / "plain_generate.py"), json.dumps(asked)])
    answers = [line for line in output.splitlines() if line.startswith("RESULT ")]
    found: dict[str, Any] = json.loads(answers[-1].removeprefix("RESULT "))
    return found


def _tell(line: dict[str, Any], out: Path) -> None:
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
