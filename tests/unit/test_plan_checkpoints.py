"""A checkpoint that training could not go on from is told of once, as an event."""

from __future__ import annotations

import pytest

from finetune_operator.api.outcome import SKIPPED_CHECKPOINTS, TerminationMessage
from manifest_builders import WorldBuilder, a_job
from plan_answers import decide, told

WHY = "checkpoint-16: optimizer.pt is not what was written"
SKIPPED = {SKIPPED_CHECKPOINTS: WHY}


def died(code: int) -> WorldBuilder:
    words = TerminationMessage("Reason", "what happened", SKIPPED).encode().decode()
    return a_job().training().died("qwen-train-0", code, raw=words)


@pytest.mark.parametrize(
    ("world", "others"),
    [
        (a_job().training().done("qwen-train-0", steps=24, **SKIPPED), {"Trained"}),
        (died(75), {"Retrying"}),
        (died(73), {"LossNotFinite"}),
    ],
    ids=["training succeeded", "it is tried again", "it failed for good"],
)
def test_a_skipped_checkpoint_is_told_with_the_reason(world: WorldBuilder, others: set[str]) -> None:
    planned = decide(world)
    event = planned.events[0]
    assert (event.type, event.reason) == ("Warning", "CheckpointSkipped")
    assert WHY in event.message
    assert others <= {reason for _, reason in told(planned)}


def test_an_attempt_that_skipped_nothing_tells_nothing() -> None:
    planned = decide(a_job().training().done("qwen-train-0", steps=24))
    assert "CheckpointSkipped" not in {reason for _, reason in told(planned)}


def test_it_is_told_once() -> None:
    world = a_job().training().done("qwen-train-0", steps=24, **SKIPPED)
    later = world.condition("Trained", "True", "Succeeded")
    assert "CheckpointSkipped" not in {reason for _, reason in told(decide(later))}
