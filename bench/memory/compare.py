"""Predicts every point of a file that measure.py wrote, and prints the table of docs/memory.md.

python bench/memory/compare.py bench/results/2026-11-22-h200-memory.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from measure import SHAPES, Point
from transformers import Qwen2Config

from finetune_operator.api.run import RunConfig
from finetune_trainer.estimate.parts import GIB, Prediction
from finetune_trainer.estimate.predict import Predictor
from finetune_trainer.estimate.workload import Workload


@dataclass(frozen=True, slots=True)
class Compared:
    """A measured training and what was predicted for it."""

    line: dict[str, Any]
    prediction: Prediction

    @property
    def error(self) -> float:
        """Of the predicted peak of what PyTorch hands out, as a share of the measured one."""
        return self.prediction.allocated / self.line["allocated_bytes"] - 1

    def as_row(self) -> str:
        """A row of the table."""
        line = self.line
        kind = f"QLoRA {line['bits']} bit" if line["method"] == "QLoRA" else line["method"]
        notes = [line[key] for key, usual in (("optimizer", "AdamW"), ("precision", "BF16")) if line[key] != usual]
        notes += ["Segmented"] if line["packing"] == "Segmented" and line["kernels"] != "fused" else []
        cells = [
            line["shape"],
            ", ".join([kind, *notes]),
            line["kernels"],
            f"{line['batch']} x {line['length']:,}",
            "on" if line["checkpointing"] else "off",
            f"{line['allocated_bytes'] / GIB:.1f}",
            f"{self.prediction.allocated / GIB:.1f}",
            f"{self.error:+.1%}",
            f"{line['used_bytes'] / GIB:.1f}" if "used_bytes" in line else "",
            f"{self.prediction.total / GIB:.1f}",
        ]
        return f"| {' | '.join(cells)} |"


def compare(line: dict[str, Any]) -> Compared:
    """Predict the training that a line of results is about."""
    point = Point(**{field.name: line[field.name] for field in fields(Point) if field.name in line})
    spec = RunConfig(name="memory", uid="memory", root="/", spec=point.spec("/model", "cuda")).spec
    tokens = point.length if line["kernels"] == "fused" else None
    workload = Workload(point.length)
    return Compared(line, predictor(point.shape).predict(spec, workload, recomputes=point.checkpointing, tokens=tokens))


@cache
def predictor(shape: str) -> Predictor:
    """One for all points of a shape."""
    return Predictor(Qwen2Config(**SHAPES[shape]), torch.bfloat16)


def trained(results: Path) -> Iterator[dict[str, Any]]:
    """The points that did not run out of memory."""
    lines = map(json.loads, results.read_text().splitlines())
    return (line for line in lines if line["outcome"] == "trained")


def main() -> int:
    """Print the table."""
    print("| model | method | kernels | batch | checkpointing | measured | predicted | error | in use | total |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for line in trained(Path(sys.argv[1])):
        print(compare(line).as_row(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
