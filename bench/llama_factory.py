"""LLaMA-Factory 0.9.5 on the bench's model and rows, measured step by step; started by train.py.

A step's time is taken with the GPU idle at both ends; tokens are those that are no padding.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

WARM_UP, SECONDS, FEWEST = 5, 20.0, 4


def main() -> int:
    """Train with the keys of the command line; print one RESULT line."""
    folder, keys, tiny = Path(sys.argv[1]), json.loads(sys.argv[2]), "--tiny" in sys.argv
    os.environ.update(WANDB_DISABLED="true", TOKENIZERS_PARALLELISM="false", HF_DATASETS_CACHE=str(folder / "cache"))
    import torch
    from llamafactory.train.tuner import run_exp
    from transformers import Trainer, TrainerCallback

    tokens = _count_tokens(Trainer)

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Times the steps, and ends the run when enough are timed."""

        steps: list[tuple[float, int]] = []
        last = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Note the step."""
            if not tiny:
                torch.cuda.synchronize()
            now = time.monotonic()
            self.steps.append((now - self.last, int(tokens.pop("real"))))
            self.last = now
            timed = self.steps[WARM_UP:]
            control.should_training_stop = len(timed) >= FEWEST and sum(span for span, _ in timed) >= SECONDS * (
                not tiny
            )

    clock = Clock()
    clock.last = time.monotonic()
    run_exp(args=_arguments(folder, keys, tiny), callbacks=[clock])
    timed = clock.steps[WARM_UP:]
    seconds = sum(span for span, _ in timed)
    found = {
        "tokens_per_second": round(sum(count for _, count in timed) / seconds, 1),
        "seconds_measured": round(seconds, 2),
        "paces": [round(count / span) for span, count in timed],
        "peak_gib": None if tiny else round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "keys": keys,
    }
    print("RESULT " + json.dumps(found), flush=True)
    return 0


def _count_tokens(trainer: Any) -> dict[str, Any]:
    """Count the tokens that are no padding of every micro-batch, into "real" of the returned dict."""
    counted: dict[str, Any] = {}
    step = trainer.training_step

    def counting(self: Any, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        counted["real"] = counted.get("real", 0) + (inputs["input_ids"] != self.processing_class.pad_token_id).sum()
        return step(self, model, inputs, *arguments, **options)

    trainer.training_step = counting
    return counted


def _arguments(folder: Path, keys: dict[str, Any], tiny: bool) -> dict[str, Any]:
    """The tutorial's configuration, with changes."""
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
        "cutoff_len": 1024,
        "output_dir": str(folder / f"peer-{time.time_ns()}"),
        "overwrite_cache": True,
        "preprocessing_num_workers": 1 if tiny else 4,
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
        **keys,
    }
    if tiny:
        arguments |= {"use_cpu": True, "bf16": False, "enable_liger_kernel": False}
    return arguments


if __name__ == "__main__":
    sys.exit(main())
