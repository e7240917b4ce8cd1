"""Starts and ends the trackers' processes for the trainer. Nothing here waits for a tracker while training runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from finetune_operator.api.base import SecretKeyReference
from finetune_operator.api.outcome import Figure
from finetune_operator.api.run import RunConfig
from finetune_trainer.tracking.tracker import Outcome

TENSORBOARD, WANDB, MLFLOW = "TensorBoard", "W&B", "MLflow"
SECONDS_TO_END = 60
"""Time that a tracker has after the training to send what is left."""
SECONDS_TO_STOP = 20
"""The same when the pod was told to stop, and its grace period runs."""

# Fewer and shorter tries than the clients' own: the next look sends what this one could not. No word to their makers.
_CLIENTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}


class Trackers:
    """The processes that report a run, one a tracker; none where this process is not the one that reports."""

    def __init__(self, run: RunConfig, *, reports: bool) -> None:
        self._run = run
        self._reports = reports
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._not_started: list[str] = []
        self._deadline = 0.0

    def begin(self) -> None:
        """Start them, once the log stands as the training will go on with it."""
        for name in wanted(self._run) if self._reports else ():
            address_file(self._run, name).unlink(missing_ok=True)
            try:
                self._processes[name] = self._start(name)
            except OSError as error:
                print(f"{name}: cannot be reported to ({error}); training goes on", flush=True)
                self._not_started.append(name)

    def end(self, outcome: Outcome) -> None:
        """Tell them, once, how the training ended. What is left is sent while a finished training writes its result."""
        if self._deadline:
            return
        self._deadline = time.monotonic() + (SECONDS_TO_STOP if outcome is Outcome.STOPPED else SECONDS_TO_END)
        for process in self._processes.values():
            # One that has died has closed its end.
            with contextlib.suppress(OSError):
                _tell(process, outcome)
                process.stdin.close() if process.stdin else None
        if outcome is not Outcome.FINISHED:
            self.wait()

    def wait(self) -> dict[str, Figure]:
        """Wait until they are done, no longer than they may take. Returns where the runs are, and whose is not whole."""
        missing = [name for name, process in self._processes.items() if not self._is_done(process, name)]
        missing += self._not_started
        files = [address_file(self._run, name) for name in self._processes]
        addresses = [file.read_text(encoding="utf-8") for file in files if file.exists()]
        self._processes = {}
        figures = {"trackedAt": " ".join(addresses), "notTrackedWhole": ", ".join(missing)}
        return {name: text for name, text in figures.items() if text}

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune_trainer.tracking.main", name],
            stdin=subprocess.PIPE,
            env={**os.environ, **_CLIENTS, **_credentials(self._run, name)},
            # A group of its own, so that a client's helpers end with it.
            start_new_session=True,
        )
        _tell(process, json.dumps(self._run.to_manifest()))
        return process

    def _is_done(self, process: subprocess.Popen[bytes], name: str) -> bool:
        try:
            code = process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = None
            print(f"{name}: takes too long; not everything was reported, trainer_log.jsonl has all figures", flush=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return code == 0


def wanted(run: RunConfig) -> list[str]:
    """Names of the trackers that the job asks for."""
    tracking = run.spec.tracking
    if tracking is None:
        return []
    asked: Mapping[str, bool] = {
        TENSORBOARD: tracking.tensor_board is not None and tracking.tensor_board.enabled,
        WANDB: tracking.wandb is not None,
        MLFLOW: tracking.mlflow is not None,
    }
    return [name for name, is_asked in asked.items() if is_asked]


def address_file(run: RunConfig, tracker: str) -> Path:
    """Where a tracker's process leaves the address of the run."""
    return run.paths.root / f".{tracker.replace('&', '').lower()}-address"


def _tell(process: subprocess.Popen[bytes], line: str) -> None:
    if process.stdin is not None:
        process.stdin.write(f"{line}\n".encode())
        process.stdin.flush()


def _credentials(run: RunConfig, name: str) -> dict[str, str]:
    """Variables for the client, for its process alone. Raises OSError where the Secret's file cannot be read."""
    tracking = run.spec.tracking
    if tracking is not None and tracking.wandb is not None and name == WANDB:
        base = {"WANDB_BASE_URL": tracking.wandb.base_url} if tracking.wandb.base_url else {}
        return {"WANDB_API_KEY": _read(run, tracking.wandb.api_key_secret), **base}
    if tracking is not None and tracking.mlflow is not None and tracking.mlflow.token_secret and name == MLFLOW:
        return {"MLFLOW_TRACKING_TOKEN": _read(run, tracking.mlflow.token_secret)}
    return {}


def _read(run: RunConfig, reference: SecretKeyReference) -> str:
    return (Path(run.secrets) / reference.name / reference.key).read_text(encoding="utf-8").strip()
