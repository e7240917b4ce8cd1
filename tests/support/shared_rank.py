"""One of several processes that share the update of some weights; leaves what came of it in a file."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, distributed, nn

from finetune_trainer.train import shared_gradients
from finetune_trainer.train.split_adamw import SplitAdamW

SHAPES = [(40, 30), (30,), (7, 3), (), (5, 5), (64, 2)]
STEPS = 6
CLIPPED_AT = 3.0
CONSTANTS: dict[str, Any] = {"lr": 3e-3, "weight_decay": 0.1}


def some_parameters() -> list[nn.Parameter]:
    """The same in every process."""
    torch.manual_seed(0)
    return [nn.Parameter((torch.randn(shape) * 0.02).bfloat16()) for shape in SHAPES]


def some_gradients(step: int, rank: int) -> list[list[Tensor]]:
    """By pass and parameter, in bf16; processes differ in numbers and in how many passes they make."""
    torch.manual_seed(100 * step + rank)
    return [[torch.randn(shape).bfloat16() for shape in SHAPES] for _ in range(1 + (step * (rank + 1)) % 3)]


def backward(parameters: list[nn.Parameter], gradients: list[Tensor]) -> None:
    """A pass with exactly these gradients."""
    sum((parameter * each).sum() for parameter, each in zip(parameters, gradients, strict=True)).backward()  # type: ignore[union-attr]


def of_all(state: dict[str, Any]) -> dict[str, Any]:
    """The state of all processes in one, as from before it was divided: each takes what it owns."""
    states: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(states, state)
    whole = {number: kept for each in states for number, kept in each["state"].items()}
    return {**state, "state": whole}


def main() -> None:
    """Train, save and take over the state in the middle, and write weights, state and gradient lengths."""
    # So that these small tensors travel in several rounds, one of them in pieces, and come back in several rounds.
    shared_gradients._EXCHANGED, shared_gradients._RETURNED = 512, 100
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    parameters, lengths = some_parameters(), []
    optimizer = SplitAdamW(parameters, **CONSTANTS, shares=True)
    for step in range(STEPS):
        passes = some_gradients(step, rank)
        for number, gradients in enumerate(passes, 1):
            with optimizer.gradients.taking(is_last=number == len(passes), is_only=len(passes) == 1):
                backward(parameters, gradients)
        lengths.append(float(optimizer.clip(CLIPPED_AT)))
        optimizer.step()
        optimizer.zero_grad()
        if step == STEPS // 2:
            state = of_all(optimizer.state_dict())
            optimizer = SplitAdamW(parameters, **CONSTANTS, shares=True)
            optimizer.load_state_dict(state)
    torch.save(
        {
            "weights": [parameter.detach() for parameter in parameters],
            "remainders": optimizer.state_dict()["state"],
            "lengths": lengths,
        },
        f"{sys.argv[1]}-{rank}",
    )
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
