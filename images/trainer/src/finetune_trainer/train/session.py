"""One process's training, from loading to export."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar

from finetune_operator.api.outcome import SKIPPED_CHECKPOINTS, Figure, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_operator.api.tokenization import Packing
from finetune_trainer.store import EVALUATION, TRAIN, Meta, RowStore
from finetune_trainer.tracking.start import Trackers
from finetune_trainer.tracking.tracker import Outcome
from finetune_trainer.train.arguments import training_arguments
from finetune_trainer.train.callbacks import CatchUpCallback, ReportCallback, Sink, StopCallback
from finetune_trainer.train.card_limits import dense_limit
from finetune_trainer.train.checkpoints import Checkpoint, CheckpointStore
from finetune_trainer.train.data import TOKENS, Collator, SequenceDataset
from finetune_trainer.train.deepspeed import begin_deepspeed
from finetune_trainer.train.device import Device, choose_device
from finetune_trainer.train.documents import PASSES, DocumentCollator
from finetune_trainer.train.entry import Entry
from finetune_trainer.train.export import export
from finetune_trainer.train.float8 import Rounding
from finetune_trainer.train.flops import learning_cost
from finetune_trainer.train.fused import FusedPlan, plan_fused
from finetune_trainer.train.heartbeat import Heartbeat, HeartbeatCallback
from finetune_trainer.train.isolation import check_isolation
from finetune_trainer.train.log import TrainerLog, read_log
from finetune_trainer.train.model import load_model
from finetune_trainer.train.optimizers import split_adamw
from finetune_trainer.train.pass_plan import Steps
from finetune_trainer.train.plot import plot_losses
from finetune_trainer.train.progress import Endpoint, ProgressReporter
from finetune_trainer.train.ranks import layout
from finetune_trainer.train.recompute import recomputes_activations
from finetune_trainer.train.say import say
from finetune_trainer.train.speed import SpeedMeter, WaitWarning
from finetune_trainer.train.start_times import StartTimes
from finetune_trainer.train.stop import StopSignal, preempted
from finetune_trainer.train.trainer import SupervisedTrainer

_SAMPLED = 64
"""Sequences on which the effect of a rounded base is measured."""
_LOOKED_AT = 256
"""Steps for whose sizes the passes are chosen."""
_LONGEST_SKIPPED = 500
"""Characters, of a termination message's 4096 bytes."""


@dataclass(frozen=True, slots=True)
class Session:
    """A trainer and what watches it."""

    trainer: SupervisedTrainer
    stop: StopCallback
    log: TrainerLog
    progress: ProgressReporter | None
    rounding: Rounding | None
    """Of a base that was to be rounded to float8."""


def train_here(run: RunConfig, meta: Meta, identity: str) -> Mapping[str, Figure]:
    """Train in this process and return the figures.

    Raises StageFailure: PREEMPTED after a SIGTERM, LOSS_NOT_FINITE, INVALID_SPEC.
    """
    began = time.monotonic()
    _quieten()
    session = build_session(run, meta, identity)
    trainer = session.trainer
    resumed = _begin(session)
    trackers = Trackers(run, reports=trainer.is_world_process_zero())
    trackers.begin()
    try:
        trainer.train(resume_from_checkpoint=str(resumed.path) if resumed else None)
        trackers.end(Outcome.STOPPED if session.stop.stopped else Outcome.FINISHED)
    except StageFailure as failure:
        _draw(run, trainer)
        failure.figures |= _told(session)
        raise
    finally:
        if session.progress is not None:
            session.progress.close()
        trackers.end(Outcome.FAILED)
    _draw(run, trainer)
    if session.stop.stopped:
        raise preempted(trainer.state.global_step, _told(session))
    if trainer.delivers_best:
        trainer.load_best()
    export(trainer, run, meta)
    return {**_figures(trainer, time.monotonic() - began), **_told(session), **trackers.wait()}


def _begin(session: Session) -> Checkpoint | None:
    """Find what to go on from; the first process looks, as reading a large checkpoint takes its time."""
    trainer = session.trainer
    found: list[Checkpoint | None] = [None]
    if trainer.is_world_process_zero():
        found[0] = trainer.store.newest_valid()
        step = found[0].step if found[0] else 0
        trainer.store.open()
        session.log.begin(step)
        say(f"train: resuming from step {step}" if step else "train: starting at step 0")
    [trainer.newest_checkpoint] = broadcast_object_list(found)
    return trainer.newest_checkpoint


def _told(session: Session) -> dict[str, Figure]:
    """What the operator makes events of, however the training ends."""
    skipped = "; ".join(f"{name}: {why}" for name, why in session.trainer.store.passed_over.items())
    rounding = session.rounding.figures() if session.rounding else {}
    return rounding | ({SKIPPED_CHECKPOINTS: skipped[:_LONGEST_SKIPPED]} if skipped else {})


def _draw(run: RunConfig, trainer: SupervisedTrainer) -> None:
    if trainer.is_world_process_zero():
        plot_losses(read_log(run.paths.trainer_log), run.paths.loss_plot)


def _quieten() -> None:
    disable_progress_bar()
    # Of no use to whoever reads the job's log: about names that transformers 6 will call otherwise.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def build_session(run: RunConfig, meta: Meta, identity: str) -> Session:
    """Everything that a training needs, ready to go."""
    start = StartTimes()
    device = choose_device(run.spec)
    heartbeat = Heartbeat.from_environment()
    store = CheckpointStore(
        run.paths.checkpoints, identity, run.spec.checkpoints.limit, layout(run.spec), heartbeat.alive
    )
    arguments = training_arguments(run, device, store.staging)
    begin_deepspeed(run.spec, is_gpu=device.is_gpu)
    # Before the model: adapters begin with random values.
    set_seed(run.spec.training.seed)
    rows = RowStore(run.paths.data / TRAIN)
    model = _model(run, device, rows.longest_sequence)
    start.passed("model")
    heartbeat.alive()
    log = TrainerLog(run.paths.trainer_log)
    endpoint = Endpoint.from_environment() if arguments.process_index == 0 else None
    progress = ProgressReporter(endpoint) if endpoint else None
    report, stopping = ReportCallback(_sinks(log, progress)), StopCallback(StopSignal())
    catch_up = CatchUpCallback()
    # Before the kernels are put in: they rearrange the layers that are counted.
    meter = _meter(model, device, arguments.world_size)
    fused = plan_fused(model, run.spec, device, _steps(rows, run), lambda: _sample(rows, meta))
    start.passed("kernels")
    trainer = SupervisedTrainer(
        store=store,
        heartbeat=heartbeat,
        meter=meter,
        lora_plus_ratio=float(run.spec.training.lora_plus_ratio or "0") or None,
        delivers_best=run.spec.evaluation is not None and run.spec.evaluation.load_best,
        model=model,
        dealt_rows=run.spec.training.per_device_batch_size if fused else None,
        args=_fed_whole_steps(arguments) if fused else arguments,
        optimizer_cls_and_kwargs=split_adamw(model, arguments),
        data_collator=_collator(meta, fused),
        train_dataset=SequenceDataset(rows),
        eval_dataset=_evaluation_rows(run),
        # In this order: what is saved is also reported.
        callbacks=[stopping, report, HeartbeatCallback(heartbeat), *_early_stopping(run), catch_up, start],
    )
    trainer.remove_callback(PrinterCallback)
    if fused is None and Packing(meta.packing) is Packing.SEGMENTED and not _is_in_pieces(run):
        check_isolation(trainer.model)
    report.trainer = catch_up.trainer = trainer
    return Session(trainer, stopping, log, progress, fused.rounding if fused else None)


def _model(run: RunConfig, device: Device, longest: int) -> PreTrainedModel:
    recomputes = recomputes_activations(run.spec.training, device, run.paths.report)
    adapter = run.paths.initial_adapter if run.spec.adapter else None
    folder = run.paths.base_model
    return load_model(folder, run.spec, device, longest=longest, recomputes=recomputes, adapter=adapter)


def _meter(model: PreTrainedModel, device: Device, processes: int) -> SpeedMeter:
    limit = dense_limit(torch.cuda.get_device_name(device.index)) if device.is_gpu else None
    return SpeedMeter(learning_cost(model), limit, processes)


def _is_in_pieces(run: RunConfig) -> bool:
    """Whether the weights are cut up (ZeRO's stage 3), so that only DeepSpeed's own engine can compute with them."""
    return run.spec.deepspeed is not None and run.spec.deepspeed.stage == 3


def _fed_whole_steps(arguments: TrainingArguments) -> TrainingArguments:
    """Hand all rows of an optimizer step over at once; the collator makes as few passes of them as it can."""
    arguments.per_device_train_batch_size *= arguments.gradient_accumulation_steps
    arguments.gradient_accumulation_steps = 1
    return arguments


def _steps(rows: RowStore, run: RunConfig) -> Steps:
    sequences = run.spec.training.sequences_per_step
    return Steps(rows.longest_sequence, rows.most_tokens(sequences), rows.steps(sequences, _LOOKED_AT))


def _sample(rows: RowStore, meta: Meta) -> list[dict[str, Any]]:
    """Passes over the first rows."""
    sequences = SequenceDataset(rows)
    first = [sequences[number] for number in range(min(_SAMPLED, len(sequences)))]
    passes: list[dict[str, Any]] = DocumentCollator(Packing(meta.packing), 0, rows.longest_sequence)(first)[PASSES]
    for inputs in passes:
        inputs.pop(TOKENS)
    return passes


def _collator(meta: Meta, fused: FusedPlan | None) -> Collator | DocumentCollator:
    packing = Packing(meta.packing)
    if fused is None:
        return Collator(meta.pad_token_id, packing)
    return DocumentCollator(packing, fused.passes.at_once, fused.passes.in_parts)


def _sinks(log: TrainerLog, progress: ProgressReporter | None) -> list[Sink]:
    def write(entry: Entry) -> None:
        # LLaMA-Factory's log ends with a line that has no loss.
        if entry.has_loss or entry.step >= entry.total_steps:
            log.append(entry)

    def show(entry: Entry) -> None:
        if entry.has_loss:
            say(entry.to_line())

    return [write, show, WaitWarning().look, *([progress.offer] if progress else [])]


def _evaluation_rows(run: RunConfig) -> SequenceDataset | None:
    folder = run.paths.data / EVALUATION
    return SequenceDataset(RowStore(folder)) if run.spec.evaluation is not None and folder.is_dir() else None


def _early_stopping(run: RunConfig) -> list[TrainerCallback]:
    patience = run.spec.training.early_stopping_patience
    return [] if patience is None else [EarlyStoppingCallback(early_stopping_patience=patience)]


def _figures(trainer: SupervisedTrainer, seconds: float) -> dict[str, Figure]:
    history = trainer.state.log_history
    figures: dict[str, Figure] = {"steps": trainer.state.global_step, "trainLoss": _mean_loss(history)}
    losses = [line["loss"] for line in history if "loss" in line]
    if losses:
        figures["lastLoss"] = round(losses[-1], 6)
    evaluations = [line["eval_loss"] for line in history if "eval_loss" in line]
    if evaluations:
        figures["evalLoss"] = round(evaluations[-1], 6)
    figures["tokens"] = trainer.tokens_seen
    figures["seconds"] = round(seconds, 1)
    if torch.cuda.is_available():
        figures["peakMemoryGiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return figures


def _mean_loss(history: list[dict[str, float]]) -> float:
    """Mean over all steps, those before a restart too: each logged loss stands for the steps since the one before."""
    total, done = 0.0, 0.0
    for line in history:
        if "loss" in line:
            total += line["loss"] * (line["step"] - done)
            done = line["step"]
    return round(total / done, 6) if done else 0.0
