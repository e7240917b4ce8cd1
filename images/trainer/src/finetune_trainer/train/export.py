"""Writes what was trained, with the tokenizer and chat template that it was trained with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_operator.api.result import write_whole
from finetune_operator.api.run import RunConfig
from finetune_trainer.folders import fresh_folder, replace_folder
from finetune_trainer.store import TOKENIZER, Meta

if TYPE_CHECKING:
    from finetune_trainer.train.trainer import SupervisedTrainer

GENERATION = "generation_config.json"


def output_folder(run: RunConfig) -> Path:
    """Where the job's result lies: the adapter, or for method Full the model."""
    return run.paths.adapter if run.spec.is_adapter else run.paths.model


def export(trainer: SupervisedTrainer, run: RunConfig, meta: Meta) -> None:
    """Write the result. All processes call this: sharded weights are gathered; the first process writes."""
    final = output_folder(run)
    partial = final.with_name(f".{final.name}.partial")
    if trainer.is_world_process_zero():
        fresh_folder(partial)
    trainer.accelerator.wait_for_everyone()
    if not run.spec.is_adapter:
        _to_checkpoint_dtype(trainer, run.paths.base_model)
    trainer.save_model(str(partial))
    if trainer.is_world_process_zero():
        _add_files(partial, run, meta)
        replace_folder(partial, final)
    trainer.accelerator.wait_for_everyone()


def _to_checkpoint_dtype(trainer: SupervisedTrainer, base: Path) -> None:
    """Training holds the weights in float32; the model is delivered in the number format it came in."""
    import torch
    from transformers import AutoConfig

    dtype = AutoConfig.from_pretrained(base).dtype
    # ZeRO gathers and writes its own shards in the format of its configuration.
    if dtype not in (None, torch.float32) and not trainer.is_deepspeed_enabled:
        trainer.model.to(dtype)


def _add_files(folder: Path, run: RunConfig, meta: Meta) -> None:
    # Pickled arguments of no use to anybody but the Trainer, and a model card of blanks to be filled in.
    for name in ("training_args.bin", "README.md"):
        (folder / name).unlink(missing_ok=True)
    shutil.copytree(run.paths.data / TOKENIZER, folder, dirs_exist_ok=True)
    generation = _generation_config(run.paths.base_model, meta)
    write_whole(folder / GENERATION, json.dumps(generation, indent=1).encode())
    if run.spec.is_adapter:
        _name_base(folder / "adapter_config.json", run.paths.base_model)
    else:
        _use_cache(folder / "config.json")


def _generation_config(base: Path, meta: Meta) -> dict[str, Any]:
    """The base model's own, stopping also at the token that ends an answer of the trained template."""
    try:
        generation: dict[str, Any] = json.loads((base / GENERATION).read_bytes())
    except FileNotFoundError:
        generation = {}
    known = generation.get("eos_token_id")
    stops = known if isinstance(known, list) else [known] if known is not None else []
    every = list(dict.fromkeys([*meta.stop_token_ids, *stops]))
    return {**generation, "eos_token_id": every if len(every) > 1 else every[0], "pad_token_id": meta.pad_token_id}


def _name_base(config: Path, base: Path) -> None:
    settings = json.loads(config.read_bytes())
    write_whole(config, json.dumps({**settings, "base_model_name_or_path": str(base)}, indent=1).encode())


def _use_cache(config: Path) -> None:
    # Switched off for training only; without it, every generated token would compute the whole text again.
    settings = json.loads(config.read_bytes())
    write_whole(config, json.dumps({**settings, "use_cache": True}, indent=1).encode())
