"""A base that rounding to float8 would have harmed is told of, and what was measured stands in the status."""

from __future__ import annotations

import pytest

from finetune_operator.api.outcome import BASE_NOT_ROUNDED, FLOAT8_LOSS_DIFFERENCE, TerminationMessage
from finetune_operator.api.status import Results
from manifest_builders import WorldBuilder, a_job
from plan_answers import decide, told

WHY = "the loss of the first rows goes from 2.1000 to 2.2000 by rounding to float8 (4.76%), at most 1% is allowed"
HARMED = {FLOAT8_LOSS_DIFFERENCE: 0.047619, BASE_NOT_ROUNDED: WHY}


def died(code: int) -> WorldBuilder:
    words = TerminationMessage("Reason", "what happened", HARMED).encode().decode()
    return a_job().training().died("qwen-train-0", code, raw=words)


@pytest.mark.parametrize(
    ("world", "others"),
    [
        (a_job().training().done("qwen-train-0", steps=24, **HARMED), {"Trained"}),
        (died(75), {"Retrying"}),
        (died(73), {"LossNotFinite"}),
    ],
    ids=["training succeeded", "it is tried again", "it failed for good"],
)
def test_a_base_that_was_not_rounded_is_told_with_the_losses(world: WorldBuilder, others: set[str]) -> None:
    planned = decide(world)
    event = planned.events[0]
    assert (event.type, event.reason) == ("Warning", "BaseNotRounded")
    assert WHY in event.message
    assert others <= {reason for _, reason in told(planned)}


def test_the_condition_goes_on_saying_so_when_the_event_is_gone() -> None:
    planned = decide(a_job().training().done("qwen-train-0", steps=24, **HARMED))
    [trained] = [condition for condition in planned.status.conditions if condition.type == "Trained"]
    assert WHY in trained.message


@pytest.mark.parametrize(
    ("figures", "shown"),
    [(HARMED, "0.04762"), ({FLOAT8_LOSS_DIFFERENCE: 0.000305}, "0.000305"), ({FLOAT8_LOSS_DIFFERENCE: "nan"}, "nan")],
    ids=["not rounded", "rounded", "a loss that is no number"],
)
def test_what_was_measured_stands_in_the_results(figures: dict[str, float | str], shown: str) -> None:
    planned = decide(a_job().training().done("qwen-train-0", **figures))
    assert planned.status.results == Results(float8_loss_difference=shown)


def test_a_base_that_was_rounded_is_no_event() -> None:
    planned = decide(a_job().training().done("qwen-train-0", **{FLOAT8_LOSS_DIFFERENCE: 0.000305}))
    assert "BaseNotRounded" not in {reason for _, reason in told(planned)}
