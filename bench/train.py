"""Real tokens a second of training, ours and LLaMA-Factory's, on the same card, model and rows, in one run.

    python bench/train.py --out bench/results/DATE-CARD-train.jsonl [--llama-factory FOLDER] [--only a,b]
    python bench/train.py --shape tiny --out /tmp/rehearsal.jsonl       # tries every variant on the CPU

``--llama-factory`` is a folder with LLaMA-Factory 0.9.5 and its own requirements (pip install --target), which is put
before this project's packages for those variants alone. Prints and appends a JSON line a variant.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import workload

HERE = Path(__file__).parent
STEPS, WARM_UP = 40, 10
PLAIN = {"fusedKernels": "Disabled"}
TUTORIAL = {"perDeviceBatchSize": 1, "gradientAccumulationSteps": 8}
LARGE = {"perDeviceBatchSize": 8, "gradientAccumulationSteps": 8}

OURS: dict[str, dict[str, Any]] = {
    "lora, tutorial's settings": {"training": TUTORIAL},
    "lora, tutorial's settings, plain": {"training": {**TUTORIAL, **PLAIN}},
    "lora, batch of 64 rows": {"training": LARGE},
    "qlora, tutorial's settings": {"method": "QLoRA", "training": TUTORIAL},
    "qlora, batch of 64 rows": {"method": "QLoRA", "training": LARGE},
}
"""Fields of the spec, by variant."""
_FAST = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "neat_packing": True,
    "enable_liger_kernel": True,
    "disable_gradient_checkpointing": True,
    "flash_attn": "sdpa",
}
PEERS: dict[str, dict[str, Any]] = {
    "llama-factory lora, tutorial's settings": {},
    "llama-factory lora, best": _FAST,
    "llama-factory qlora, best": {
        **_FAST,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "quantization_bit": 4,
        "quantization_method": "bnb",
    },
}
"""LLaMA-Factory's keys, by variant; the best ones were found by trying its options on one H200."""


def main() -> int:
    """Measure every variant, one process after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines are added to this file")
    parser.add_argument("--shape", choices=workload.SHAPES, default="7b")
    parser.add_argument("--llama-factory", type=Path, help="folder with LLaMA-Factory's packages")
    parser.add_argument("--only", help="variants, separated by |")
    parser.add_argument("--seconds", type=float, default=3600, help="start no further variant after so long")
    options = parser.parse_args()
    wanted = options.only.split("|") if options.only else [*OURS, *(PEERS if options.llama_factory else [])]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="finetune-bench-") as name:
        folder = Path(name)
        rows = workload.write_rows(folder / "data", workload.ROWS if options.shape != "tiny" else 200)
        _run(
            [sys.executable, __file__, "--write-model", str(folder / "model"), options.shape], {}, folder / "model.log"
        )
        for variant in wanted:
            if time.monotonic() - began > options.seconds:
                print(f"left out for lack of time: {variant}", flush=True)
                continue
            line = {"variant": variant, **_measured(variant, folder, options), "data": rows}
            line["at"] = datetime.now().astimezone().isoformat(timespec="seconds")
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"[{time.monotonic() - began:6.1f}] {json.dumps(line)}", flush=True)
    return 0


def _measured(variant: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    try:
        if variant in OURS:
            return _ours(OURS[variant], folder / variant.replace(" ", "-"), folder, options.shape)
        return _peer(PEERS[variant], folder, options)
    except subprocess.CalledProcessError as error:
        return {"error": str(error), "output": str(error.output)[-1500:]}


def _ours(changes: dict[str, Any], root: Path, folder: Path, shape: str) -> dict[str, Any]:
    spec = {
        "model": {"source": f"file://{folder}/model"},
        "datasets": [{"source": f"file://{folder}/data/rows.jsonl"}],
        "method": "LoRA",
        "tokenization": {"cutoffLen": 1024, "template": "qwen", "packing": "None"},
        "logging": {"steps": 5},
        "checkpoints": {"steps": 100_000},
        "resources": {"gpusPerNode": 0 if shape == "tiny" else 1},
        **changes,
    }
    steps = STEPS if spec["training"]["gradientAccumulationSteps"] * spec["training"]["perDeviceBatchSize"] <= 8 else 20
    spec["training"] = {"maxSteps": steps, "learningRate": "1e-4", **spec["training"]}
    root.mkdir()
    file = root / "run.json"
    file.write_text(json.dumps({"name": "bench", "uid": "bench", "root": str(root), "spec": spec}))
    for stage in ("prepare", "train"):
        _run([sys.executable, "-m", "finetune_trainer.main", stage, "--run", str(file)], {}, root / f"{stage}.log")
    log = [json.loads(line) for line in (root / "trainer_log.jsonl").read_text().splitlines()]
    result = json.loads((root / "result.json").read_text())["train"]
    return {**_pace(log), "peak_gib": result.get("peakMemoryGiB"), "loss": result["lastLoss"], "spec": spec["training"]}


def _pace(log: list[dict[str, Any]]) -> dict[str, Any]:
    """Tokens a second after the warm-up: each logged pace holds for the time since the line before."""
    lines = [line for line in log if "tokens_per_second" in line and "loss" in line]
    times = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines]
    spans = [
        (line["tokens_per_second"], now - before)
        for line, before, now in zip(lines[1:], times, times[1:], strict=False)
        if line["current_steps"] > WARM_UP
    ]
    seconds = sum(span for _, span in spans)
    return {
        "tokens_per_second": round(sum(pace * span for pace, span in spans) / seconds, 1),
        "seconds_measured": round(seconds, 2),
        "paces": [round(pace) for pace, _ in spans],
    }


def _peer(keys: dict[str, Any], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "llama_factory.py"), str(folder), json.dumps(keys)]
    command += ["--tiny"] if options.shape == "tiny" else []
    output = _run(command, {"PYTHONPATH": str(options.llama_factory)}, folder / "peer.log")
    answer = next(line for line in reversed(output.splitlines()) if line.startswith("RESULT "))
    found: dict[str, Any] = json.loads(answer.removeprefix("RESULT "))
    return found


def _run(command: list[str], variables: dict[str, str], log: Path) -> str:
    """Run a process; its output. Raises CalledProcessError with it."""
    paths = os.pathsep.join([str(HERE), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", **variables}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log.write_text(done.stdout)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command[:4], done.stdout)
    return done.stdout


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write-model"]:
        workload.write_model(Path(sys.argv[2]), sys.argv[3], "cpu" if sys.argv[3] == "tiny" else "cuda")
        sys.exit(0)
    sys.exit(main())
