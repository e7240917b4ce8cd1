"""The train stage: loads what prepare left, trains from the newest checkpoint, writes the result."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from finetune_operator.api.device import stands_in
from finetune_operator.api.outcome import ExitCode, Figure, StageFailure
from finetune_operator.api.result import read_results, record_stage
from finetune_operator.api.run import RunConfig
from finetune_trainer.quick_imports import without_collection
from finetune_trainer.store import Meta
from finetune_trainer.train.export import output_folder
from finetune_trainer.train.gpu_start import begin_context
from finetune_trainer.train.rank import begin_rank, is_one_of_several, is_rank
from finetune_trainer.train.ranks import run_ranks

STAGE = "train"
IDENTITY = "identity"
"""Figure with the identity of the training that left the result."""


def train(run: RunConfig, run_file: Path) -> Mapping[str, Figure]:
    """Run the stage and return its figures. A finished one is not run again.

    Raises StageFailure: INVALID_SPEC, PREEMPTED, LOSS_NOT_FINITE, STORAGE_FULL, NO_PROGRESS, OUT_OF_MEMORY.
    """
    meta = _load_meta(run)
    identity = f"{run.training_hash()}-{meta.tokens_hash}"
    done = read_results(run.paths.result).get(STAGE, {})
    if done.get(IDENTITY) == identity and output_folder(run).is_dir():
        print("train: already done", flush=True)
        return done
    if not is_rank():
        return run_ranks(run, run_file)
    begin_rank()
    _prepare_process(run)
    if run.spec.resources.gpus_per_node and not stands_in():
        begin_context(int(os.environ.get("LOCAL_RANK", "0")))
    # The heavy imports come after what they must not see, and only where there is something to train.
    with without_collection():
        from finetune_trainer.train.session import train_here

    figures = {**train_here(run, meta, identity), IDENTITY: identity}
    if os.environ.get("RANK", "0") == "0":
        record_stage(run.paths.result, STAGE, figures)
    return figures


def _load_meta(run: RunConfig) -> Meta:
    try:
        return Meta.load(run.paths.data)
    except FileNotFoundError as error:
        raise StageFailure(
            ExitCode.INTERNAL, f"{run.paths.data}: there are no prepared rows; the prepare stage has to finish first."
        ) from error


def _prepare_process(run: RunConfig) -> None:
    # Everything was fetched by prepare; a look-up on the network could only hang.
    os.environ["HF_HUB_OFFLINE"] = "1"
    # This project's own reporter speaks for the job; the Trainer's would post beside it.
    os.environ["DISABLE_KUBEFLOW_INTEGRATION"] = "TRUE"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if run.spec.deepspeed is None:
        # Whatever a library asks for, a checkpoint is not unpickled. DeepSpeed's own states are classes of its own.
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    # It warns of a kernel package that is optional.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # peft and transformers import these if they are installed, which takes up to ten seconds.
    if run.spec.effective_quantization is None and not run.spec.training.optimizer.is_of_bitsandbytes:
        sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
    if run.spec.deepspeed is None:
        sys.modules.setdefault("deepspeed", None)  # type: ignore[arg-type]
        # Nothing here is compiled by it, but bitsandbytes decorates functions with it, which takes a second.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    for name in ("datasets", "boto3"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    if not is_one_of_several():
        _see_one_gpu()


def _see_one_gpu() -> None:
    """Hide further GPUs from a process that was given one: the Trainer would spread every batch over all it sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
