"""The plan of a training's passes, from memory that was measured."""

import pytest

from finetune_trainer.train.pass_plan import PASS_COST, Kept, PassPlan, Room, choose, tokens_that_fit

BF16 = Kept(state=10_000, gradients=2000)
"""Of 1000 weights: 10 bytes each of the optimizer's, 2 of gradients, which the fixed bytes contain, and 2 more of sums."""


@pytest.mark.parametrize(
    ("step", "recomputed", "tokens"),
    [(280, 0, 280), (281, 0, 80), (180, 1, 180), (181, 1, 80), (1, 1, 180)],
    ids=["one pass", "several passes", "one, recomputed", "several, recomputed", "short steps"],
)
def test_bf16_weights_leave_room_for_more_tokens_where_every_step_is_one_pass(
    step: int, recomputed: float, tokens: int
) -> None:
    assert tokens_that_fit(Room(16_000, 2400, 20), BF16, step, recomputed) == tokens


def test_what_gradients_take_at_the_end_limits_a_pass_too() -> None:
    assert tokens_that_fit(Room(12_600, 2400, 20), BF16, 1, 0) == 4 * 10


def test_float32_weights_have_as_much_room_however_long_a_step_is() -> None:
    assert {tokens_that_fit(Room(16_000, 2400, 20), Kept(8000), step, 1) for step in (1, 100_000)} == {280}


def room(count: int) -> Room:
    """10 layers keep 100 bytes a token each, or 10 when they recompute."""
    return Room(free=1_200_000, fixed=0, per_token=1000).towards(Room(1_200_000, 0, 100), count / 10)


@pytest.mark.parametrize(
    ("longest", "step", "expected"),
    [
        (500, 1000, PassPlan(1200, 0)),
        (500, 6000, PassPlan(1200, 0)),
        (1300, 1300, PassPlan(1318, 1)),
        (2000, 2000, PassPlan(2181, 5)),
        (12_000, 12_000, PassPlan(12_000, 10)),
        (12_001, 12_001, PassPlan(12_000, 10)),
    ],
    ids=["all in one pass", "several passes", "a layer", "some layers", "all layers", "nothing helps"],
)
def test_as_few_layers_recompute_as_the_longest_sequence_allows(longest: int, step: int, expected: PassPlan) -> None:
    assert choose(range(11), 10, room, Kept(0), longest, step) == expected


def test_layers_recompute_where_further_passes_would_take_longer() -> None:
    passes_are_cheap = choose(range(11), 10, room, Kept(0), 1, 3000)
    passes_need_sums = choose(range(11), 10, room, Kept(0, gradients=400_000), 1, 1900)
    assert passes_are_cheap == PassPlan(1200, 0)
    assert passes_need_sums.recomputed > 0
    assert passes_need_sums.passes(1900) == 1


def test_what_was_asked_for_is_the_only_choice() -> None:
    assert choose([0], 10, room, Kept(0), 1300, 1300) == PassPlan(1200, 0)
    assert choose([10], 10, room, Kept(0), 1300, 1300) == PassPlan(12_000, 10)


def test_a_plan_costs_its_tokens_the_layers_computed_again_and_its_passes() -> None:
    assert PassPlan(1000, 0).cost(3000, 10) == 3000 + 3 * PASS_COST
    assert PassPlan(3000, 10).cost(3000, 10) == 4000 + PASS_COST
    assert PassPlan(100_000, 0).cost(40_000, 10) == 40_000 + 2 * PASS_COST, "no pass is larger than the largest"
