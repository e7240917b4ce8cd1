"""Time and memory of merging: this project's stage, a plain copy of the same files, and PEFT's own merge, in one run.

    python bench/merge.py --out bench/results/DATE-cpu-merge.jsonl [--shape 7b] [--repetitions 3] [--peer] [--folder DIR]

The model has random bf16 weights, the adapter rank 8 on every linear layer. Needs twice the model's size on disk; the
page cache is dropped before each measurement where the machine lets us, so that every one reads from the disk.
Prints and appends a JSON line a measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
import workload
from processes import own_environment

RANK = 8
SHARD_BYTES = 4 << 30
SAMPLE_SECONDS = 0.02
PACKAGES = ("torch", "transformers", "peft", "safetensors")
PARTS = {"imported": " computing on ", "written": " written$", "proved": " INFO parity "}
"""Parts of the stage, and what its log says at the end of each. The proof is computed beside the writing."""
COPY = """
import os, pathlib, sys
source, target = map(pathlib.Path, sys.argv[1:])
target.mkdir()
for path in sorted(source.iterdir()):
    with path.open("rb") as read, (target / path.name).open("wb") as write:
        while piece := read.read(16 << 20):
            write.write(piece)
        os.fsync(write.fileno())
"""
PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
PeftModel.from_pretrained(model, sys.argv[2]).merge_and_unload().save_pretrained(sys.argv[3])
"""


def main() -> None:
    """Make the model, measure each way in turn, as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines are added to this file")
    parser.add_argument("--shape", choices=workload.SHAPES, default="7b")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help="measure PEFT's merge_and_unload as well")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetune-merge-", dir=options.folder) as name:
        folder = Path(name)
        size = write_base(folder / "base" / "model", options.shape)
        write_adapter(folder / "base" / "adapter", folder / "base" / "model", options.shape)
        ways: dict[str, Callable[[Path, Path], dict[str, Any]]] = {"copy": _copy, "merge": _merge}
        if options.peer:
            ways["PEFT"] = _peft
        for repetition in range(options.repetitions):
            for way, measure in ways.items():
                target = folder / "made"
                about = {"bench": "merge", "way": way, "shape": options.shape, "model_bytes": size}
                line = {
                    **about,
                    "repetition": repetition,
                    **machine.about(PACKAGES),
                    **measure(folder / "base", target),
                }
                shutil.rmtree(target)
                _tell(line, options.out)


def write_base(folder: Path, shape: str) -> int:
    """Write a Qwen2 model with random bf16 weights, a file's worth of tensors at a time; returns its bytes."""
    import torch
    from accelerate import init_empty_weights  # type: ignore[import-untyped,unused-ignore]
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(**workload.SHAPES[shape], bos_token_id=None, eos_token_id=2, pad_token_id=0)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    config.save_pretrained(folder)
    # Random numbers of 7B weights take a processor minutes.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(7)
    shards: list[dict[str, Any]] = [{}]
    for name, parameter in model.named_parameters():
        filled = sum(parameter.numel() * 2 for parameter in shards[-1].values())
        if filled and filled + parameter.numel() * 2 > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = parameter
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        made = {name: torch.randn(p.shape, dtype=torch.bfloat16, device=device) * 0.02 for name, p in shard.items()}
        save_file({name: tensor.cpu() for name, tensor in made.items()}, folder / file)
        index |= dict.fromkeys(shard, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def write_adapter(folder: Path, base: Path, shape: str) -> None:
    """Write an adapter of rank 8 on every linear layer, as PEFT saves it, with random values in both halves."""
    import torch
    from accelerate import init_empty_weights
    from peft import LoraConfig
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, Qwen2Config

    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(Qwen2Config(**workload.SHAPES[shape]), dtype=torch.bfloat16)
    tensors = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            key = f"base_model.model.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(RANK, module.in_features) * 0.01
            tensors[f"{key}.lora_B.weight"] = torch.randn(module.out_features, RANK) * 0.01
    targets = sorted({name.split(".")[-3] for name in tensors})
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, base_model_name_or_path=str(base))
    config.task_type = "CAUSAL_LM"
    config.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors")


def _copy(base: Path, target: Path) -> dict[str, Any]:
    return _measured([sys.executable, "-c", COPY, str(base / "model"), str(target)])


def _merge(base: Path, target: Path) -> dict[str, Any]:
    """The whole stage, and by its log when it had imported its packages, written the weights and proved them."""
    target.mkdir()
    # The layout of a job's volume: the base model and the adapter of a training that has ended.
    (target / "base").symlink_to(base / "model")
    (target / "adapter").symlink_to(base / "adapter")
    spec = {"model": {"source": f"file://{base}/model"}, "datasets": [{"source": "file:///none"}], "method": "LoRA"}
    file = target / "run.json"
    file.write_text(json.dumps({"name": "bench", "uid": "bench", "root": str(target), "spec": spec}))
    found = _measured([sys.executable, "-m", "finetune_merger.main", "merge", "--run", str(file)])
    log, began = found.pop("output").splitlines(), found["began"]
    parts = {f"seconds_until_{part}": round(_last(log, said) - began, 2) for part, said in PARTS.items()}
    result = json.loads((target / "result.json").read_text())["merge"]
    return {**found, **parts, "result": result}


def _last(log: list[str], said: str) -> float:
    """Time of the last line of a log that says this."""
    line = next(line for line in reversed(log) if re.search(said, line))
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").astimezone(UTC).timestamp()


def _peft(base: Path, target: Path) -> dict[str, Any]:
    return _measured([sys.executable, "-c", PEFT, str(base / "model"), str(base / "adapter"), str(target)])


def _measured(command: list[str]) -> dict[str, Any]:
    """Run a process: seconds, and the most memory it held, with and without the pages of files that it mapped."""
    dropped = _drop_page_cache()
    began, wall, computed = time.monotonic(), time.time(), _processor_seconds()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, env=own_environment(), stdout=output, stderr=subprocess.STDOUT)
        own, resident = _peaks(process)
        seconds = time.monotonic() - began
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{command[1:5]} ended with {process.returncode}: {text[-2000:]}")
    computed = round(_processor_seconds() - computed, 2)
    found = {"seconds": round(seconds, 2), "processor_seconds": computed, "own_gib": own, "resident_gib": resident}
    found["cold"] = dropped
    return found | {"began": wall, "output": text}


def _processor_seconds() -> float:
    """Of all children that have ended, in the kernel too: what stays comparable on a machine that others use as well."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peaks(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    own = resident = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except FileNotFoundError:
            break
        fields = {name: int(size) for name, size in re.findall(r"(RssAnon|VmHWM):\s+(\d+) kB", status)}
        own, resident = max(own, fields.get("RssAnon", 0)), max(resident, fields.get("VmHWM", 0))
        time.sleep(SAMPLE_SECONDS)
    process.wait()
    return round(own / 2**20, 3), round(resident / 2**20, 3)


def _drop_page_cache() -> bool:
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def _tell(line: dict[str, Any], out: Path) -> None:
    line = {name: value for name, value in line.items() if name not in ("output", "began")}
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
