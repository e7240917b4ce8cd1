"""What a base in float8 does to a loss that falls: the same job in BF16 and in FP8Base, on the CPU, through the trainer's commands.

    python bench/float8_loss.py --out bench/results/DATE-cpu-float8-loss.jsonl [--steps 200]

The rounding is that of a GPU, computed plainly; a tiny model with random weights learns the tutorial's identity rows. Prints and
appends a JSON line a precision, with the mean loss of every 20 steps.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import machine
from processes import own_environment, run

from finetune_devcluster.tiny_model import make_tiny_model, texts_of

ROWS = Path(__file__).parents[1] / "examples" / "data" / "identity.json"
EVERY = 20


def main() -> int:
    """Train in both precisions, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines are added to this file")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetune-bench-") as name:
        folder = Path(name)
        make_tiny_model(folder / "model", texts_of(ROWS))
        for precision in ("BF16", "FP8Base"):
            line = {"bench": "float8_loss", "precision": precision, **_trained(folder, precision, options.steps)}
            line |= machine.about(("torch", "transformers", "peft"))
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
    return 0


def _trained(folder: Path, precision: str, steps: int) -> dict[str, Any]:
    root = folder / precision
    root.mkdir()
    kernels = {"precision": precision, "fusedKernels": "Enabled"}
    spec = {
        "model": {"source": f"file://{folder}/model"},
        "datasets": [
            {"source": f"file://{ROWS}", "format": "Alpaca", "placeholders": {"name": "Pebble", "author": "the River"}}
        ],
        "method": "LoRA",
        "tokenization": {"cutoffLen": 128, "packing": "None"},
        "training": {"maxSteps": steps, "perDeviceBatchSize": 8, "learningRate": "2e-3", **kernels},
        "logging": {"steps": 1},
        "resources": {"gpusPerNode": 0},
    }
    file = root / "run.json"
    file.write_text(json.dumps({"name": "bench", "uid": "bench", "root": str(root), "spec": spec}))
    for stage in ("prepare", "train"):
        output = run([sys.executable, "-m", "finetune_trainer.main", stage, "--run", str(file)], own_environment())
    lines = [json.loads(line) for line in (root / "trainer_log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    means = {end: round(fmean(losses[end - EVERY : end]), 4) for end in range(EVERY, steps + 1, EVERY)}
    said = [line for line in output.splitlines() if "float8" in line]
    return {"steps": steps, "losses": means, "said": said}


if __name__ == "__main__":
    sys.exit(main())
