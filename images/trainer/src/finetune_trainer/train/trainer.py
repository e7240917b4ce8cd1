"""The Hugging Face Trainer with this project's checkpoints and its guard against losses that are not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_trainer.train.checkpoints import Checkpoint, CheckpointStore, whole_or_nothing
from finetune_trainer.train.data import TOKENS
from finetune_trainer.train.documents import PASSES
from finetune_trainer.train.finite import FiniteGuard, weights_are_finite
from finetune_trainer.train.heartbeat import Heartbeat
from finetune_trainer.train.optimizers import lora_plus_optimizer
from finetune_trainer.train.read_ahead import ReadAhead
from finetune_trainer.train.sampling import ByLength
from finetune_trainer.train.speed import SpeedMeter
from finetune_trainer.train.split_adamw import SplitAdamW
from finetune_trainer.train.step_shares import StepShares, prepared_loader
from finetune_trainer.train.stop import EvaluationStopped
from finetune_trainer.train.watchdog import Phase


class SupervisedTrainer(Trainer):  # type: ignore[misc]  # transformers is not type-checked
    """Trains on stored rows. Loss is summed over an optimizer step and divided by the step's learnt tokens."""

    def __init__(
        self,
        *,
        store: CheckpointStore,
        heartbeat: Heartbeat,
        meter: SpeedMeter,
        lora_plus_ratio: float | None = None,
        delivers_best: bool = False,
        dealt_rows: int | None = None,
        **options: Any,
    ) -> None:
        """With ``dealt_rows``, a training batch is a process's whole share of a step, dealt to it so many rows at a time."""
        super().__init__(**options)
        self.store = store
        self._heartbeat = heartbeat
        self.meter = meter
        self._reader: ReadAhead | None = None
        self._guard = FiniteGuard(scales_loss=self.args.fp16)
        self._lora_plus_ratio = lora_plus_ratio
        self._dealt_rows = dealt_rows
        self._split: SplitAdamW | None = None
        if self._shares:
            # The optimizer exchanges the gradients. DistributedDataParallel would, too, and keep all of them.
            self.accelerator.prepare_model = partial(_unwrapped, self.accelerator.prepare_model)
        self.delivers_best = delivers_best
        self.newest_checkpoint: Checkpoint | None = None

    @property
    def _shares(self) -> bool:
        """Whether each process updates a part of the weights."""
        given = self.optimizer_cls_and_kwargs
        return given is not None and bool(given[1].get("shares"))

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        # "cpu" and "cpu:0" differ enough for a copy, which would part the weights from the memory that kernels compute with.
        if next(model.parameters()).device.type != device.type:
            super()._move_model_to_device(model, device)

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """The Trainer's optimizer, or LoRA+."""
        if self._lora_plus_ratio is None or getattr(self, "optimizer", None) is not None:
            made = super().create_optimizer(model)
            self._split = made if isinstance(made, SplitAdamW) else self._split
            return made
        self.optimizer: Any = lora_plus_optimizer(model or self.model, self.args, self._lora_plus_ratio)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return ByLength(self.train_dataset.lengths, batch, seed)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Loss of one batch, counting its tokens on the way."""
        if PASSES in inputs:
            return self._evaluate_passes(model, inputs[PASSES], **options)
        documents = inputs.pop(TOKENS)
        if model.training:
            self.meter.learnt(documents)
            # Kept in checkpoints, so that a resumed run goes on counting.
            self.state.num_input_tokens_seen += sum(documents)
        return super().compute_loss(model, inputs, *args, **options)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward over one batch, in as many passes as its collator made of it. Returns the batch's loss."""
        passes = inputs.get(PASSES, [inputs])
        losses = []
        for number, each in enumerate(passes, 1):
            with self._taking_gradients(model, is_last=number == len(passes), is_only=len(passes) == 1):
                losses.append(super().training_step(model, each, num_items_in_batch))
        return torch.stack(losses).sum()

    def _taking_gradients(self, model: nn.Module, *, is_last: bool, is_only: bool) -> AbstractContextManager[None]:
        if self._split is not None:
            return self._split.gradients.taking(is_last=is_last, is_only=is_only)
        # Processes exchange gradients once a step, however many passes each of them needs.
        without: AbstractContextManager[None] = nullcontext() if is_last else self.accelerator.no_sync(model)
        return without

    def _evaluate_passes(self, model: nn.Module, passes: list[dict[str, Any]], **options: Any) -> Any:
        # Targets of all processes' batches: the Trainer multiplies by the number of processes.
        items = options.get("num_items_in_batch")
        losses = [self.compute_loss(model, each, num_items_in_batch=items) for each in passes]
        total = torch.stack(losses).sum()
        return (total, {"loss": total}) if options.get("return_outputs") else total

    @property
    def tokens_seen(self) -> int:
        """Tokens that are no padding, trained on by all processes since step 0; shares of equal size assumed."""
        return int(self.state.num_input_tokens_seen) * int(self.args.world_size)

    def evaluate_now(self) -> None:
        """Evaluate outside the schedule's turn, with all that the schedule's evaluations lead to."""
        self._determine_best_metric(metrics=self._evaluate(None, None), trial=None)

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        # Resumed after the last step, or stopped by the evaluation that was owed: the Trainer would make one step more.
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True
            return
        try:
            super()._run_epoch(*arguments, **options)
        finally:
            self._stop_reading()

    def get_train_dataloader(self) -> Any:
        """The Trainer's, but with batches that stay in main memory until their step."""
        if self._dealt_rows is None or self.args.world_size == 1:
            loader = super().get_train_dataloader()
        else:
            loader = self._share_loader(self._dealt_rows)
        # Copies that the thread makes would queue up behind the kernels of the step that runs.
        loader.device = None
        return loader

    def _share_loader(self, dealt_rows: int) -> Any:
        shares = StepShares(
            self._get_train_sampler(),
            batch=dealt_rows,
            batches=self.args.train_batch_size // dealt_rows,
            processes=self.args.world_size,
            process=self.args.process_index,
        )
        pins = self.args.dataloader_pin_memory
        loader = DataLoader(self.train_dataset, batch_sampler=shares, collate_fn=self.data_collator, pin_memory=pins)
        return prepared_loader(loader, self.accelerator)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The batches of a step, which a thread has read and pinned during the step before."""
        if self._reader is None:
            self._reader = ReadAhead(epoch_iterator, num_batches + 1, _begin_on(device))
        batches = self.meter.watched(self._reader)
        sent = (send_to_device(batch, device, non_blocking=True) for batch in batches)
        return super().get_batch_samples(sent, num_batches, device)

    def _stop_reading(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        if self._reader is not None:
            # accelerate keeps a list of the loaders that are read, without a lock.
            self._reader.settle()
        try:
            with self._heartbeat.during(Phase.EVALUATE, self.state.global_step):
                metrics: dict[str, float] = super()._evaluate(*arguments, **options)
                return metrics
        except EvaluationStopped:
            self.control.should_save = True
            self.control.should_training_stop = True
            return {}

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        return bool(metrics) and bool(super()._determine_best_metric(metrics=metrics, trial=trial))

    def _clip_grad_norm(self, model: nn.Module) -> Tensor | float | None:
        if self._split is not None:
            return self._split.clip(self.args.max_grad_norm)
        norm: Tensor | float | None = super()._clip_grad_norm(model)
        return norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        # The last moment before the optimizer would write what is not a number into the weights.
        if grad_norm is None and self._split is not None:
            grad_norm = self._split.gradient_norm()
        norm: Tensor | float | None = super()._get_grad_norm(model, grad_norm=grad_norm)
        # DeepSpeed does not tell it in every stage; the loss has to do then.
        problem = self._guard.problem(self._tr_loss.item(), 0.0 if norm is None else float(norm))
        if problem:
            raise self._not_finite(self.state.global_step + 1, problem)
        return norm

    def _not_finite(self, step: int, found: str) -> StageFailure:
        kept = self.newest_checkpoint
        return StageFailure(
            ExitCode.LOSS_NOT_FINITE,
            f"step {step}: {found}, expected finite numbers. Lower "
            "training.learningRate or add training.warmupRatio, and look for broken rows. "
            + (f"The checkpoint of step {kept.step} is kept." if kept else "There is no checkpoint yet."),
            step=step,
        )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step = self.state.global_step
        staged = Path(self.args.output_dir) / f"checkpoint-{step}"
        # The step itself can do it, with a finite loss and gradient: nothing that is kept may be replaced by that.
        if not weights_are_finite(model):
            raise self._not_finite(step, "weights that are infinite or not a number")
        with self._heartbeat.during(Phase.SAVE, step):
            with whole_or_nothing(staged):
                super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                best = self._best_step([step]) if self.delivers_best else None
                self.newest_checkpoint = self.store.commit(staged, step, best)
            self.accelerator.wait_for_everyone()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        part = self._part_of_state(output_dir)
        if part is not None and self._split is not None:
            part.parent.mkdir(parents=True, exist_ok=True)
            torch.save(self._split.state_dict(), part)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        part = self._part_of_state(checkpoint)
        # Before the state was divided, the first process's file had all of it, and every process has read that by now.
        if part is not None and part.exists() and self._split is not None:
            self._split.load_state_dict(torch.load(part, map_location="cpu", weights_only=True))

    def _part_of_state(self, folder: str | None) -> Path | None:
        """File of this process's part of the optimizer's state; None where it is in the Trainer's own, as the first one's."""
        if folder is None or not self._shares or self.is_world_process_zero():
            return None
        return Path(folder) / f"optimizer-{self.args.process_index}.pt"

    def load_best(self) -> None:
        """Go back to the checkpoint with the lowest loss on the rows held back. All processes call this."""
        best = self._best_step()
        if best is None or best == self.state.global_step:
            return
        folder = next(checkpoint.path for checkpoint in self.store.committed if checkpoint.step == best)
        self.state.best_model_checkpoint = str(folder)
        self._load_best_model()
        if self.is_world_process_zero():
            print(f"train: the checkpoint of step {best} has the lowest evaluation loss and is delivered", flush=True)

    def _best_step(self, new: Sequence[int] = ()) -> int | None:
        """The saved step with the lowest evaluation loss; ``new`` are steps about to be committed."""
        losses = {line["step"]: line["eval_loss"] for line in self.state.log_history if "eval_loss" in line}
        saved = {*new, *(checkpoint.step for checkpoint in self.store.committed)}
        return min((step for step in saved if step in losses), key=lambda step: losses[step], default=None)


def _unwrapped(prepare: Callable[..., nn.Module], model: nn.Module, **_: Any) -> nn.Module:
    """What accelerate's ``prepare_model`` makes of a model that is in its place and exchanges nothing."""
    return prepare(model, device_placement=False, evaluation_mode=True)


def _begin_on(device: torch.device) -> Callable[[], None]:
    """What a further thread has to do first: it would begin to use the first GPU beside this process's own."""
    return partial(torch.cuda.set_device, torch.cuda.current_device()) if device.type == "cuda" else lambda: None


def stop_agreed(received: bool, device: torch.device) -> bool:
    """Whether any process was told to stop: all of them have to leave the loop after the same step."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return received
    flag = torch.tensor(int(received), device=device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag.item())
