"""LLaMA-Factory on the bench's model and rows, measured step by step; started by train.py.

python bench/llama_factory.py '{"folder": …, "cutoff": …, "settings": {…}, "tiny": …, "began": …}'
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import peer_steps


def main() -> int:
    """Train with the tutorial's configuration and the changes of the command line; print one RESULT line."""
    asked = json.loads(sys.argv[1])
    folder = Path(asked["folder"])
    peer_steps.set_environment(str(folder / f"cache-{time.time_ns()}"))
    from llamafactory.train.tuner import run_exp

    turn = peer_steps.Turn(asked["began"])
    timed = peer_steps.clock(turn, asked["tiny"])
    turn.wait()
    run_exp(args=_arguments(folder, asked), callbacks=[timed])
    peer_steps.tell(timed, "LLaMA-Factory", asked["settings"], ["llamafactory"])
    return 0


def _arguments(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    arguments = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(folder / "model"),
        "finetuning_type": "lora",
        "lora_target": "all",
        "lora_rank": 8,
        "dataset": "rows",
        "dataset_dir": str(folder / "data"),
        "template": "qwen",
        "cutoff_len": asked["cutoff"],
        "output_dir": str(folder / f"peer-{time.time_ns()}"),
        "overwrite_cache": True,
        "preprocessing_num_workers": 1 if asked["tiny"] else 4,
        "logging_steps": 10,
        "save_strategy": "no",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "learning_rate": 1.0e-4,
        "num_train_epochs": 20.0,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "bf16": True,
        "report_to": "none",
        **asked["settings"],
    }
    if asked["tiny"]:
        # transformers' 4-bit models are loaded in bfloat16, also where there is no GPU.
        arguments |= {"use_cpu": True, "bf16": "quantization_bit" in arguments, "enable_liger_kernel": False}
    return arguments


if __name__ == "__main__":
    sys.exit(main())
