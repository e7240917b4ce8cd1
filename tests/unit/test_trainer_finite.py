"""What is not a number is seen within the step; what is normal in float16 is not mistaken for it."""

import math

import pytest
import torch

from finetune_trainer.train.finite import MOST_OVERFLOWS, FiniteGuard, weights_are_finite

INFINITE, NOT_A_NUMBER = math.inf, math.nan


@pytest.mark.parametrize(
    ("loss", "norm", "scales_loss", "is_problem"),
    [
        (2.5, 0.3, False, False),
        (2.5, 0.0, False, False),
        (NOT_A_NUMBER, 0.3, False, True),
        (INFINITE, 0.3, False, True),
        (2.5, NOT_A_NUMBER, False, True),
        (2.5, INFINITE, False, True),
        (2.5, INFINITE, True, False),
        (2.5, NOT_A_NUMBER, True, False),
        (NOT_A_NUMBER, NOT_A_NUMBER, True, True),
        (INFINITE, INFINITE, True, True),
    ],
)
def test_a_step_that_would_spoil_the_weights_is_seen_before_it_is_made(
    loss: float, norm: float, scales_loss: bool, is_problem: bool
) -> None:
    assert (FiniteGuard(scales_loss=scales_loss).problem(loss, norm) is not None) is is_problem


def test_a_float16_training_that_skips_every_step_is_ended() -> None:
    guard = FiniteGuard(scales_loss=True)
    assert [guard.problem(2.5, INFINITE) for _ in range(MOST_OVERFLOWS - 1)] == [None] * (MOST_OVERFLOWS - 1)
    assert guard.problem(2.5, INFINITE) == f"loss 2.5, gradient norm inf for {MOST_OVERFLOWS} steps in a row"


def test_a_step_that_was_made_begins_the_count_anew() -> None:
    guard = FiniteGuard(scales_loss=True)
    for _ in range(3 * MOST_OVERFLOWS):
        assert guard.problem(2.5, INFINITE) is None
        assert guard.problem(2.5, 0.5) is None


def test_only_weights_that_are_trained_are_looked_at() -> None:
    model = torch.nn.Linear(2, 2)
    assert weights_are_finite(model)
    with torch.no_grad():
        model.weight[0, 0] = NOT_A_NUMBER
    assert not weights_are_finite(model)
    model.weight.requires_grad_(False)
    assert weights_are_finite(model)
