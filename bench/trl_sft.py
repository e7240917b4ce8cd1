"""TRL's SFTTrainer on the bench's model and rows, measured step by step; started by train.py as llama_factory.py is."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import peer_steps


def main() -> int:
    """Train with SFTConfig's defaults, the tutorial's LoRA and the changes of the command line; print one RESULT line."""
    asked = json.loads(sys.argv[1])
    folder = Path(asked["folder"])
    peer_steps.set_environment(str(folder / f"cache-{time.time_ns()}"))
    from peft import LoraConfig
    from trl import SFTTrainer

    turn = peer_steps.Turn(asked["began"])
    timed = peer_steps.clock(turn, asked["tiny"])
    turn.wait()
    trainer = SFTTrainer(
        **_model(folder / "model", asked["tiny"]),
        args=_config(folder, asked),
        train_dataset=_rows(folder / "data" / "rows.jsonl"),
        callbacks=[timed],
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    peer_steps.tell(timed, "TRL", asked["settings"], ["trl"])
    return 0


def _config(folder: Path, asked: dict[str, Any]) -> Any:
    from trl import SFTConfig

    is_tiny = asked["tiny"]
    settings = {
        "output_dir": str(folder / f"peer-{time.time_ns()}"),
        "learning_rate": 1e-4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 10,
        "num_train_epochs": 20,
        "max_length": asked["cutoff"],
        "bf16": not is_tiny,
        "use_cpu": is_tiny,
        "report_to": "none",
        "logging_steps": 10,
        "save_strategy": "no",
        **asked["settings"],
    }
    if is_tiny:
        settings["use_liger_kernel"] = False
    return SFTConfig(**settings)


def _model(folder: Path, is_tiny: bool) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place: dict[str, Any] = {"dtype": torch.float32} if is_tiny else {"dtype": torch.bfloat16, "device_map": {"": 0}}
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", **place)
    return {"model": model, "processing_class": AutoTokenizer.from_pretrained(folder)}


def _rows(file: Path) -> Any:
    """Prompt and completion, so that it is the answers that are learnt, as the others do."""
    from datasets import Dataset

    messages = [json.loads(line)["messages"] for line in file.read_text().splitlines()]
    return Dataset.from_list([{"prompt": turns[:-1], "completion": turns[-1:]} for turns in messages])


if __name__ == "__main__":
    sys.exit(main())
