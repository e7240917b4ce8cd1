"""AdamW for bf16 weights that loses nothing: each float32 master weight is the bf16 weight and 16 bits more.

Weight (2 bytes), remainder (2), two moments (8) and bf16 gradient (2) take 14 bytes a weight, where float32 weights take 16
and are cast in every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from finetune_trainer.train.gradient_sums import GradientSums
from finetune_trainer.train.shared_gradients import SharedGradients

_NOT_A_NUMBER = 0x7FC00000
_HALF = 0x8000


def join(weight: Tensor, remainder: Tensor) -> Tensor:
    """The float32 masters of bf16 weights and their int16 remainders."""
    return ((weight.view(torch.int16).to(torch.int32) << 16) + remainder).view(torch.float32)


def split_into(master: Tensor, weight: Tensor, remainder: Tensor) -> None:
    """Write float32 ``master`` as the nearest bf16 ``weight`` and the int16 ``remainder`` of the bit patterns' difference.

    Ties round away from zero: to even, both neighbours of a tie could be meant by one remainder. Only what is not a
    number loses bits; its patterns would partly round to -0.
    """
    bits = torch.where(master.isnan(), _NOT_A_NUMBER, master.view(torch.int32))
    high = (bits + _HALF) >> 16
    weight.view(torch.int16).copy_(high)
    remainder.copy_(bits - (high << 16))


class SplitAdamW(Optimizer):
    """torch.optim.AdamW on float32 masters, with bf16 parameters and bf16 or summed float32 gradients."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        shares: bool = False,
    ) -> None:
        """With ``shares``, each process of the default process group updates a part of the parameters."""
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        others = {parameter.dtype for parameter in self._parameters() if parameter.dtype is not torch.bfloat16}
        if others:
            raise TypeError(f"parameters in {', '.join(sorted(map(str, others)))}, expected torch.bfloat16 alone")
        self.gradients = SharedGradients(self._parameters()) if shares else GradientSums(self._parameters())
        self._factor: Tensor | None = None

    def gradient_norm(self) -> Tensor:
        """Length of all gradients, computed in float32."""
        found = [
            self.gradients.gradient(parameter) for parameter in self._parameters() if self.gradients.owns(parameter)
        ]
        lengths = [
            torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in found if gradient is not None
        ]
        squares = torch.stack(lengths).square().sum() if lengths else torch.zeros((), device=self._device)
        return self.gradients.over_processes(squares).sqrt() * self.gradients.scale

    def clip(self, longest: float) -> Tensor:
        """Have the next step scale the gradients down to this length. Returns the length that they have."""
        norm = self.gradient_norm()
        # As torch.nn.utils.clip_grad_norm_, but in float32 and without a pass over all gradients.
        self._factor = (longest / (norm + 1e-6)).clamp(max=1.0) * self.gradients.scale
        return norm

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters, and forget the gradients' sums and what `clip` found."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        groups = {parameter: group for group in self.param_groups for parameter in group["params"]}
        for bunch in self.gradients.rounds:
            for parameter in bunch:
                gradient = self.gradients.gradient(parameter)
                if gradient is not None:
                    self._update(parameter, gradient, groups[parameter])
            self.gradients.give_back(bunch)
        self.gradients.clear()
        self._factor = None
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over state as it was saved, of what this process updates; torch would cast all of it to bf16."""
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for key, parameter in zip(saved, self._parameters(), strict=True):
            if key in state_dict["state"] and self.gradients.owns(parameter):
                self.state[parameter] = _moved(state_dict["state"][key], parameter.device)

    @property
    def _device(self) -> torch.device:
        return next(iter(self._parameters())).device

    def _parameters(self) -> Iterable[nn.Parameter]:
        return chain.from_iterable(group["params"] for group in self.param_groups)

    def _update(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "exp_avg" not in state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.float32)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.float32)
        if "remainder" not in state:
            state["remainder"] = torch.zeros_like(parameter, dtype=torch.int16)
        if parameter.is_cuda:
            _update_in_one_kernel(parameter, gradient, state, self._factor_on(parameter.device), group)
        else:
            _update_plainly(parameter, gradient.float() * self._factor_on(parameter.device), state, group)

    def _factor_on(self, device: torch.device) -> Tensor:
        if self._factor is None:
            self._factor = torch.full((), self.gradients.scale, device=device)
        return self._factor


def _update_in_one_kernel(
    parameter: nn.Parameter, gradient: Tensor, state: dict[str, Any], factor: Tensor, group: dict[str, Any]
) -> None:
    # Imported late: Triton compiles for GPUs, and is not there without one.
    from finetune_trainer.kernels.split_adamw_triton import step_tensor

    state["step"] += 1
    moments = state["exp_avg"], state["exp_avg_sq"]
    step_tensor(parameter, state["remainder"], gradient, *moments, factor, int(state["step"]), group)


def _update_plainly(parameter: nn.Parameter, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    master = join(parameter, state["remainder"])
    beta1, beta2 = group["betas"]
    adamw(
        [master],
        [gradient],
        [state["exp_avg"]],
        [state["exp_avg_sq"]],
        [],
        [state["step"]],
        foreach=False,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
    split_into(master, parameter, state["remainder"])


def _moved(state: dict[str, Any], device: torch.device) -> dict[str, Any]:
    # The count of steps stays where the host reads it without waiting.
    return {name: value if name == "step" else value.to(device) for name, value in state.items()}
