"""``finetune-server`` on this machine, for as long as somebody chats."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import urllib3

from finetune_operator.api.delivery import Engine, Serving, ServingMode
from finetune_operator.api.outcome import TERMINATION_LOG_VARIABLE, TerminationMessage
from finetune_operator.api.result import write_whole
from finetune_operator.api.run import RunConfig
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.local.inputs import has_gpu
from finetune_operator.cli.local.process import environment_with, kill_group
from finetune_operator.cli.local.stages import MERGE, find_program, stages_left

PROGRAM = "finetune-server"
HOST = "127.0.0.1"
START_SECONDS = 600
STOP_SECONDS = 15
POLL_SECONDS = 0.2


def serve_command(config: RunConfig, host: str, port: int, mode: ServingMode | None = None) -> list[str]:
    """Command line of the server of a finished run, by default as its job serves. Raises CommandError where it is not finished."""
    # An adapter is there once it is trained.
    left = [stage for stage in stages_left(config) if stage != MERGE or mode is not ServingMode.ADAPTER]
    if left:
        raise CommandError(f"{config.root}: stage {left[0].name} is not done yet; run `finetune run` again")
    file = Path(config.root) / "serve.json"
    write_whole(file, serving_config(config, mode).dump().encode())
    return [find_program(PROGRAM), "serve", "--run", str(file), "--host", host, "--port", str(port)]


def serving_config(config: RunConfig, mode: ServingMode | None = None) -> RunConfig:
    """The job as this machine can serve it: with the engine and the devices that are there, and open to this machine only."""
    wanted = config.spec.serving or Serving()
    has_adapter_only = config.spec.is_adapter and not config.spec.merge.enabled
    serving = wanted.model_copy(
        update={
            "mode": ServingMode.ADAPTER if has_adapter_only else mode or wanted.mode,
            "engine": wanted.engine if shutil.which("vllm") else Engine.TRANSFORMERS,
            "gpus": wanted.gpus if has_gpu() else 0,
            "api_key_secret": None,
        }
    )
    return config.model_copy(update={"spec": config.spec.model_copy(update={"serving": serving})})


@contextlib.contextmanager
def running(config: RunConfig, mode: ServingMode | None = None) -> Iterator[str]:
    """Start the server, give its base URL once it is up, and stop it at the end. Raises CommandError."""
    port = _free_port()
    log = Path(config.root) / "server.log"
    last_words = Path(config.root) / "termination-serve.json"
    last_words.unlink(missing_ok=True)
    # A default SIGTERM would end this process at once and leave the server behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with log.open("wb") as output:
        child = subprocess.Popen(
            serve_command(config, HOST, port, mode),
            env=environment_with({TERMINATION_LOG_VARIABLE: str(last_words)}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        url = f"http://{HOST}:{port}"
        _wait_until_up(url, child, log, last_words)
        yield url
    finally:
        _stop(child)


def _wait_until_up(url: str, child: subprocess.Popen[bytes], log: Path, last_words: Path) -> None:
    pool = urllib3.PoolManager(retries=False, timeout=1.0)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise CommandError(f"the server ended with exit code {child.returncode}: {_reason(log, last_words)}")
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            if pool.request("GET", f"{url}/health").status == 200:
                return
        time.sleep(POLL_SECONDS)
    raise CommandError(f"the server is not up after {START_SECONDS} s; its log is {log}")


def _reason(log: Path, last_words: Path) -> str:
    message = TerminationMessage.decode(last_words.read_text()) if last_words.exists() else None
    if message:
        return f"{message.reason}: {message.message}"
    lines = log.read_text(errors="replace").splitlines()
    return f"{lines[-1] if lines else '(no output)'} (log: {log})"


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        kill_group(child)
        child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port
