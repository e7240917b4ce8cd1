"""Measures what training really takes of a GPU's memory, for docs/memory.md: random weights, random rows, the trainer's own code.

    python bench/memory/measure.py --out results.jsonl                          # on a machine with one large GPU
    python bench/memory/measure.py --shape tiny --device cpu --out results.jsonl   # tries the path, measures nothing

Writes a JSON line a point. Predictions are not made here, where time costs most: compare.py adds them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "qwen2-7b": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
    "qwen2-1.5b": {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
}
"""Configurations of Qwen2 as published on its model cards; the tiny one is for trying this file out."""
STEPS = 3
# Not PEFT nor the Trainer: they import bitsandbytes, which touches the GPU, and no child could use it any more.
PRELOADED = ["torch", "numpy", "accelerate", "transformers.models.qwen2.modeling_qwen2"]


@dataclass(frozen=True, slots=True)
class Point:
    """One training to measure."""

    shape: str
    method: str
    length: int
    batch: int
    checkpointing: bool
    bits: int = 4
    packing: str = "None"
    optimizer: str = "AdamW"
    precision: str = "BF16"
    accumulation: int = 1
    kernels: str = "transformers"
    """Or "fused"."""

    def spec(self, folder: str, device: str) -> dict[str, Any]:
        """The point as a job's spec."""
        spec: dict[str, Any] = {
            "model": {"source": f"file://{folder}"},
            "datasets": [{"source": "file:///rows.jsonl"}],
            "method": self.method,
            "tokenization": {"cutoffLen": self.length, "packing": self.packing},
            "training": {
                "maxSteps": STEPS,
                "perDeviceBatchSize": self.batch,
                "gradientAccumulationSteps": self.accumulation,
                "gradientCheckpointing": "Enabled" if self.checkpointing else "Disabled",
                "optimizer": self.optimizer,
                "precision": self.precision,
                "fusedKernels": "Enabled" if self.kernels == "fused" else "Disabled",
            },
            "logging": {"steps": 1},
            "resources": {"gpusPerNode": 1 if device == "cuda" else 0},
        }
        if self.method == "QLoRA":
            spec["quantization"] = {"bits": self.bits}
        return spec


POINTS = [
    Point("qwen2-7b", "LoRA", 1024, 1, True),
    Point("qwen2-7b", "LoRA", 1024, 4, False),
    Point("qwen2-7b", "LoRA", 4096, 1, False),
    Point("qwen2-7b", "LoRA", 4096, 4, True),
    Point("qwen2-7b", "QLoRA", 1024, 1, True),
    Point("qwen2-7b", "QLoRA", 1024, 4, False),
    Point("qwen2-7b", "QLoRA", 4096, 1, False),
    Point("qwen2-7b", "QLoRA", 4096, 4, True),
    Point("qwen2-1.5b", "Full", 1024, 1, True),
    Point("qwen2-1.5b", "Full", 1024, 4, False, accumulation=2),
    Point("qwen2-1.5b", "Full", 4096, 1, False),
    Point("qwen2-1.5b", "Full", 4096, 4, True),
    Point("qwen2-1.5b", "LoRA", 1024, 1, False),
    Point("qwen2-1.5b", "LoRA", 4096, 4, False),
    Point("qwen2-1.5b", "QLoRA", 4096, 1, True),
    Point("qwen2-7b", "QLoRA", 1024, 4, True, bits=8),
    Point("qwen2-7b", "LoRA", 4096, 1, False, packing="Segmented"),
    Point("qwen2-1.5b", "Full", 1024, 4, True, optimizer="AdamW8bit"),
    Point("qwen2-7b", "Full", 1024, 1, True),
    Point("qwen2-7b", "LoRA", 1024, 1, True, precision="FP16"),
    Point("qwen2-1.5b", "Full", 1024, 1, True, optimizer="Adafactor"),
    Point("qwen2-1.5b", "LoRA", 4096, 1, True, packing="Segmented", accumulation=2),
    Point("qwen2-7b", "LoRA", 4096, 1, False, kernels="fused"),
    Point("qwen2-7b", "LoRA", 8192, 1, True, kernels="fused"),
    Point("qwen2-7b", "QLoRA", 8192, 1, False, kernels="fused"),
    Point("qwen2-1.5b", "Full", 2048, 1, False, kernels="fused"),
    Point("qwen2-7b", "LoRA", 8192, 1, False, precision="FP8Base", kernels="fused"),
    Point("qwen2-7b", "Full", 4096, 1, False, kernels="fused"),
    Point("qwen2-1.5b", "LoRA", 8192, 1, False, kernels="fused"),
]


def main() -> int:
    """Measure every point, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines are added to this file")
    parser.add_argument("--shape", choices=SHAPES, help="this shape alone; tiny takes every point's other settings")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--only", type=int, nargs="+", help="these points alone, by number from 0")
    parser.add_argument("--seconds", type=float, default=420, help="start no further point after so long")
    options = parser.parse_args()
    points = POINTS if options.shape is None else _of_shape(options.shape)
    if options.only:
        points = [points[number] for number in options.only]
    began = time.monotonic()
    # Children of a process that has imported most things start in no time, with a GPU that nothing has touched.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory(prefix="finetune-memory-") as folder:
        for shape in dict.fromkeys(point.shape for point in points):
            _in_process(context, _save_model, shape, f"{folder}/{shape}", options.device)
            print(f"[{time.monotonic() - began:6.1f}] saved {shape}", flush=True)
        for number, point in enumerate(points):
            if time.monotonic() - began > options.seconds:
                print(f"left out for lack of time: {points[number:]}", flush=True)
                break
            line = {**asdict(point), **_measured(context, point, folder, options.device)}
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"[{time.monotonic() - began:6.1f}] {json.dumps(line)}", flush=True)
    return 0


def _of_shape(shape: str) -> list[Point]:
    if shape != "tiny":
        return [point for point in POINTS if point.shape == shape]
    small = [replace(point, shape=shape, length=point.length // 32) for point in POINTS]
    return list(dict.fromkeys(small))


def _measured(context: Any, point: Point, folder: str, device: str) -> dict[str, Any]:
    busy = _used_now() if device == "cuda" else 0
    began = time.monotonic()
    try:
        found = _in_process(context, _train, point, folder, device)
    except RuntimeError as error:
        found = {"outcome": str(error)}
    if "used_bytes" in found:
        # What other processes of the machine hold is not ours.
        found["used_bytes"] -= busy
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def _in_process(context: Any, work: Any, *arguments: Any) -> Any:
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sending, work, *arguments))
    process.start()
    sending.close()
    try:
        answer = receiving.recv()
    except EOFError:
        answer = RuntimeError(f"the process ended with {process.exitcode} and no answer")
    process.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(sending: Connection, work: Any, *arguments: Any) -> None:
    try:
        sending.send(work(*arguments))
    except Exception as error:
        sending.send(RuntimeError(f"{type(error).__name__}: {str(error)[:300]}"))


def _save_model(shape: str, folder: str, device: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(7)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(Qwen2Config(**SHAPES[shape]), dtype=torch.bfloat16)
    model.save_pretrained(folder)


def _train(point: Point, folder: str, device: str) -> dict[str, Any]:
    import torch

    # As in the train stage: imported where it is installed, and of no use.
    sys.modules.setdefault("datasets", None)  # type: ignore[arg-type]
    from transformers.trainer_utils import SaveStrategy

    from finetune_operator.api.run import RunConfig
    from finetune_trainer.train.session import build_session

    spec = point.spec(f"{folder}/{point.shape}", device)
    with tempfile.TemporaryDirectory(dir=folder) as root:
        run = RunConfig(name="memory", uid="memory", root=root, spec=spec)
        run.paths.base_model.symlink_to(f"{folder}/{point.shape}")
        meta = _write_rows(run, point)
        outcome = "trained"
        try:
            trainer = build_session(run, meta, "memory").trainer
            # A checkpoint of 90 GB would be written after the last step.
            trainer.args.save_strategy = SaveStrategy.NO
            trainer.train()
        except torch.OutOfMemoryError as error:
            outcome = f"out of memory: {str(error)[:200]}"
        return {"outcome": outcome, **(_gpu_figures() if device == "cuda" else {})}


def _write_rows(run: Any, point: Point) -> Any:
    import numpy as np

    from finetune_trainer.prepare.parts import write_part
    from finetune_trainer.store import INPUT_IDS, LABELS, ROW, ROWS, TRAIN, Meta

    share = 8 if point.packing == "Segmented" else 1
    count, length = STEPS * point.batch * point.accumulation * share, point.length // share
    ids = np.random.default_rng(7).integers(0, SHAPES[point.shape]["vocab_size"], (count, length), dtype="<i4")
    table = np.zeros(count, dtype=ROW)
    table["start"], table["length"], table["trained"] = np.arange(count) * length, length, length
    run.paths.data.mkdir(parents=True)
    ids.tofile(run.paths.data / INPUT_IDS)
    ids.tofile(run.paths.data / LABELS)
    table.tofile(run.paths.data / ROWS)
    write_part(run.paths.data / TRAIN, np.arange(count), table["length"], point.length if share > 1 else None)
    return Meta(
        input_hash="",
        tokens_hash="",
        files=["rows"],
        pad_token_id=0,
        stop_token_ids=[0],
        packing=point.packing,
        report={},
    )


def _gpu_figures() -> dict[str, Any]:
    import torch

    free, total = torch.cuda.mem_get_info()
    return {
        "allocated_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
        "used_bytes": total - free,
        "kept_bytes": torch.cuda.memory_allocated(),
        "gpu": torch.cuda.get_device_name(),
        "gpu_bytes": total,
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "peft", "accelerate", "bitsandbytes")}


def _used_now() -> int:
    """Bytes of the first GPU that are taken, without touching it ourselves."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) << 20


if __name__ == "__main__":
    sys.exit(main())
