"""Start the engine that the job asks for and let it run until it is told to stop."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

from finetune_operator.api.delivery import Engine, Serving
from finetune_operator.api.device import stands_in
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_server.folder import make_served_folder
from finetune_server.key import read_api_key
from finetune_server.probe import PORT
from finetune_server.vllm_engine import KEY_VARIABLE, PROGRAM, vllm_command
from finetune_server.vllm_guard import RUN_VARIABLE

HOST = "0.0.0.0"  # nosec B104 # noqa: S104 (the Service reaches the pod by its address)


def serve(run: RunConfig, host: str = HOST, port: int = PORT) -> None:
    """Serve the job's model under the job's name; returns, if at all, when the server was stopped.

    Raises StageFailure where the model, the key or the engine is not there.
    """
    serving = run.spec.serving or Serving()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    if _engine(serving) is Engine.VLLM:
        _become_vllm(run, serving, host, port)
    else:
        _serve_with_transformers(run, serving, host, port)


def _engine(serving: Serving) -> Engine:
    if serving.engine is not Engine.AUTO:
        return serving.engine
    return Engine.VLLM if _has_gpu(serving) else Engine.TRANSFORMERS


def _has_gpu(serving: Serving) -> bool:
    return serving.gpus > 0 and not stands_in()


def _become_vllm(run: RunConfig, serving: Serving, host: str, port: int) -> None:
    command = vllm_command(run, serving, host, port)
    os.environ[RUN_VARIABLE] = run.dump()
    key = read_api_key(run)
    if key is not None:
        os.environ[KEY_VARIABLE] = key
    try:
        os.execvp(PROGRAM, command)  # noqa: S606 (vLLM takes this process's place, and with it its signals)
    except FileNotFoundError as error:
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            "serving.engine: this image has no vLLM; set the operator's image for vLLM to one that carries vLLM and "
            "finetune-server, or serving.engine to Transformers.",
        ) from error


def _serve_with_transformers(run: RunConfig, serving: Serving, host: str, port: int) -> None:
    read_api_key(run)  # a Secret without the key is said now, not to the first client
    scratch = Path(tempfile.mkdtemp(prefix="finetune-serve-"))
    _stop_on_sigterm(scratch)
    make_served_folder(run, scratch)
    # Nothing may be written below a read-only root or an absent home.
    os.environ.setdefault("HF_HOME", str(scratch / ".cache"))
    os.chdir(scratch)
    # Only now: transformers fixes its cache and whether it is offline when it is imported.
    from finetune_server.transformers_engine import GuardedServe

    GuardedServe(run.name, "auto" if _has_gpu(serving) else "cpu", host, port, lambda: read_api_key(run))


def _stop_on_sigterm(scratch: Path) -> None:
    """End at once on SIGTERM. uvicorn waits for requests under way while it serves, and raises the signal again after.

    The first process of a pod has no default action for SIGTERM: without a handler the pod would load its model to the
    end, and a generation under way would keep it from ending.
    """

    def stop(number: int, frame: object) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
