"""This project's trainer on the bench's model and rows, through its own commands."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import windows
import workload
from processes import BenchError, own_environment, run
from train_variants import Ours

SECONDS_BETWEEN_LOOKS = 0.05
_TINY_STEPS = 4
_LOSSES = 25
"""Steps between the losses that are kept."""
_TINY = {"perDeviceBatchSize": 1, "gradientAccumulationSteps": 4}


def prepare(folder: Path, variants: dict[str, Ours], rows: str, is_tiny: bool) -> dict[str, BenchError]:
    """Run the prepare stage of every job, all at once; what went wrong, by job."""

    def one(name: str) -> BenchError | None:
        try:
            run(_command("prepare", _write_run(folder, name, variants[name], rows, is_tiny)), _environment(is_tiny))
        except BenchError as error:
            return error
        return None

    with ThreadPoolExecutor(1 if is_tiny else 8) as threads:
        errors = zip(variants, threads.map(one, variants), strict=True)
        return {name: error for name, error in errors if error is not None}


def train(folder: Path, name: str, variant: Ours, is_tiny: bool) -> dict[str, Any]:
    """Run the train stage; its figures. Raises BenchError where it fails, ValueError where it made too few steps."""
    root = _root(folder, name)
    began = time.time()
    with (root / "train.log").open("w") as log:
        process = subprocess.Popen(
            _command("train", root / "run.json"),
            env=_environment(is_tiny),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    killed = _wait(process, root, _last_step(variant, is_tiny) if variant.ends_early else None)
    if process.returncode and not killed:
        raise BenchError(f"{name} ended with {process.returncode}", (root / "train.log").read_text(errors="replace"))
    log_lines = _losses(root)
    warm_up = 1 if is_tiny else variant.warm_up
    return {
        # The first step has no line before it, so that the warm-up is one step shorter here.
        **windows.figures(_steps(log_lines), warm_up - 1),
        **_means(log_lines[warm_up:]),
        "first_step_seconds": round(_time(log_lines[0]) - began, 1),
        **_result(root),
        "loss": log_lines[-1]["loss"],
        "losses": {line["current_steps"]: line["loss"] for line in log_lines[_LOSSES - 1 :: _LOSSES]},
        "settings": _settings(root),
        "log": _says(root),
    }


def _root(folder: Path, name: str) -> Path:
    return folder / "jobs" / name.replace(" ", "-").replace(",", "")


def _command(stage: str, run_file: Path) -> list[str]:
    return [sys.executable, "-m", "finetune_trainer.main", stage, "--run", str(run_file)]


def _environment(is_tiny: bool) -> dict[str, str]:
    return own_environment(**({"FINETUNE_DEVICE": "cpu"} if is_tiny else {}))


def _last_step(variant: Ours, is_tiny: bool) -> int:
    return _TINY_STEPS if is_tiny else variant.warm_up + variant.steps


def _write_run(folder: Path, name: str, variant: Ours, rows: str, is_tiny: bool) -> Path:
    steps = _last_step(variant, is_tiny)
    spec: dict[str, Any] = {
        "model": {"source": f"file://{folder}/model"},
        "datasets": [{"source": f"file://{folder}/data/rows.jsonl"}],
        "method": variant.method,
        "tokenization": {"cutoffLen": workload.ROWS[rows].cutoff, "template": "qwen", "packing": variant.packing},
        # The trainer reads the loss of every step anyway, so that a line a step costs nothing.
        "logging": {"steps": 1},
        "checkpoints": {"steps": 100_000},
        "training": {
            "maxSteps": steps + 1000 * variant.ends_early,
            "learningRate": "1e-4",
            **variant.training,
            **(_TINY if is_tiny else {}),
        },
        "resources": {"gpusPerNode": variant.gpus},
    }
    if variant.memory_gib is not None:
        spec["resources"]["gpuMemory"] = f"{variant.memory_gib:g}Gi"
    root = _root(folder, name)
    root.mkdir(parents=True)
    file = root / "run.json"
    file.write_text(json.dumps({"name": "bench", "uid": "bench", "root": str(root), "spec": spec}))
    return file


def _wait(process: subprocess.Popen[bytes], root: Path, last_step: int | None) -> bool:
    """Wait for the end; with ``last_step``, kill it after that. Returns whether it was killed."""
    try:
        while process.poll() is None:
            if last_step is not None and len(_losses(root)) >= last_step:
                return True
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _losses(root: Path) -> list[dict[str, Any]]:
    """The log's lines of steps; one that is being written is left out."""
    file = root / "trainer_log.jsonl"
    if not file.exists():
        return []
    lines = [json.loads(text) for text in file.read_text().splitlines(keepends=True) if text.endswith("\n")]
    return [line for line in lines if "loss" in line]


def _steps(lines: list[dict[str, Any]]) -> list[windows.Step]:
    """Seconds and tokens of each step but the first: a logged pace holds for the time since the line before."""
    times = [_time(line) for line in lines]
    spans = [now - before for before, now in itertools.pairwise(times)]
    return [(span, line["tokens_per_second"] * span) for line, span in zip(lines[1:], spans, strict=True)]


def _means(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Other figures that the trainer logs, where it knows them."""
    names = ("tflops_per_second", "share_of_limit", "data_wait_share")
    return {name: round(fmean(line[name] for line in lines), 4) for name in names if name in lines[-1]}


def _time(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def _result(root: Path) -> dict[str, Any]:
    file = root / "result.json"
    result = json.loads(file.read_text()).get("train", {}) if file.exists() else {}
    return {"peak_gib": result.get("peakMemoryGiB")}


def _settings(root: Path) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads((root / "run.json").read_text())["spec"]
    # The others name folders that are gone when the figures are read.
    return {name: spec[name] for name in ("method", "training", "resources")}


def _says(root: Path) -> list[str]:
    """What the trainer decided: lines that begin with its name."""
    return [line for line in (root / "train.log").read_text(errors="replace").splitlines() if line.startswith("train:")]
