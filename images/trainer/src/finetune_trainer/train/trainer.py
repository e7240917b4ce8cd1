"""The Hugging Face Trainer with this project's checkpoints and its guard against losses that are not finite."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_trainer.train.checkpoints import Checkpoint, CheckpointStore, whole_or_nothing
from finetune_trainer.train.data import TOKENS


class SupervisedTrainer(Trainer):  # type: ignore[misc]  # transformers is not type-checked
    """Trains on stored rows. Loss is summed over an optimizer step and divided by the step's learnt tokens."""

    def __init__(self, *, store: CheckpointStore, **options: Any) -> None:
        super().__init__(**options)
        self.store = store
        self.newest_checkpoint: Checkpoint | None = None

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Loss of one batch, counting its tokens on the way."""
        tokens = inputs.pop(TOKENS)
        if model.training:
            # Kept in checkpoints, so that a resumed run goes on counting.
            self.state.num_input_tokens_seen += tokens
        return super().compute_loss(model, inputs, *args, **options)

    @property
    def tokens_seen(self) -> int:
        """Tokens that are no padding, trained on by all processes since step 0; shares of equal size assumed."""
        return int(self.state.num_input_tokens_seen) * int(self.args.world_size)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float:
        # The last moment before the optimizer would write what is not a number into the weights.
        norm: Tensor | float = super()._get_grad_norm(model, grad_norm=grad_norm)
        loss = self._tr_loss.item()
        # With loss scaling, a gradient that overflows is normal: the scaler skips the step and lowers the scale.
        if not math.isfinite(loss) or not (self.args.fp16 or math.isfinite(float(norm))):
            raise self._not_finite(loss, float(norm))
        return norm

    def _not_finite(self, loss: float, norm: float) -> StageFailure:
        kept = self.newest_checkpoint
        return StageFailure(
            ExitCode.LOSS_NOT_FINITE,
            f"step {self.state.global_step + 1}: loss {loss}, gradient norm {norm}, expected finite numbers. Lower "
            "training.learningRate or add training.warmupRatio, and look for broken rows. "
            + (f"The checkpoint of step {kept.step} is kept." if kept else "There is no checkpoint yet."),
            step=self.state.global_step + 1,
        )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step = self.state.global_step
        staged = Path(self.args.output_dir) / f"checkpoint-{step}"
        with whole_or_nothing(staged):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            self.newest_checkpoint = self.store.commit(staged, step)
        self.accelerator.wait_for_everyone()


def stop_agreed(received: bool, device: torch.device) -> bool:
    """Whether any process was told to stop: all of them have to leave the loop after the same step."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return received
    flag = torch.tensor(int(received), device=device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag.item())
