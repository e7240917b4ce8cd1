"""The plan of a training's passes, from memory that was measured."""

import pytest

from finetune_trainer.train.pass_plan import MOST_TOKENS, Kept, PassPlan, Room, Steps, choose

BF16 = Kept(state=10_000, gradients=2000)
"""Of 1000 weights: 10 bytes each of the optimizer's, 2 of gradients, which the fixed bytes contain, and 2 more of sums."""


def only(room: Room, kept: Kept, recomputed: int = 0) -> PassPlan:
    """The plan for a single layer where there is no choice."""
    return choose([recomputed], 1, lambda _: room, kept, steps(1))


def steps(*some: int, longest: int = 1) -> Steps:
    return Steps(longest, max(some), some)


def test_bf16_weights_leave_room_for_more_tokens_where_a_step_is_one_pass() -> None:
    assert only(Room(16_000, 2400, 20), BF16) == PassPlan(at_once=280, in_parts=80, recomputed=0)
    assert only(Room(16_000, 2400, 20), BF16, recomputed=1) == PassPlan(at_once=180, in_parts=80, recomputed=1)


def test_what_gradients_take_at_the_end_limits_a_pass_too() -> None:
    assert only(Room(12_600, 2400, 20), BF16).at_once == 4 * 10


def test_float32_weights_have_as_much_room_however_long_a_step_is() -> None:
    assert only(Room(16_000, 2400, 20), Kept(8000)) == PassPlan(280, 280, 0)


def test_no_pass_is_larger_than_what_makes_it_faster() -> None:
    assert only(Room(1e12, 0, 20), Kept(0)) == PassPlan(MOST_TOKENS, MOST_TOKENS, 0)
    longer = steps(10 * MOST_TOKENS, longest=MOST_TOKENS + 1)
    assert choose([0], 1, lambda _: Room(1e12, 0, 20), Kept(0), longer).holds(longer), (
        "but for a sequence that is longer"
    )


def room(count: int) -> Room:
    """10 layers keep 100 bytes a token each, or 10 when they recompute."""
    return Room(free=1_200_000, fixed=0, per_token=1000).towards(Room(1_200_000, 0, 100), count / 10)


def chosen(expected: Steps, kept: Kept = Kept(0)) -> PassPlan:  # noqa: B008  # it is frozen
    return choose(range(11), 10, room, kept, expected)


@pytest.mark.parametrize(
    ("expected", "tokens", "recomputed"),
    [
        (steps(1000, longest=500), 1200, 0),
        (steps(6000, longest=500), 1200, 0),
        (steps(1300, longest=1300), 1318, 1),
        (steps(2000, longest=2000), 2181, 5),
        (steps(12_000, longest=12_000), 12_000, 10),
        (steps(12_001, longest=12_001), 12_000, 10),
    ],
    ids=["all in one pass", "several passes", "a layer", "some layers", "all layers", "nothing helps"],
)
def test_as_few_layers_recompute_as_the_longest_sequence_allows(expected: Steps, tokens: int, recomputed: int) -> None:
    found = chosen(expected)
    assert (found.in_parts, found.recomputed) == (tokens, recomputed)
    assert found.holds(expected) is (tokens >= expected.longest)


def test_layers_recompute_where_further_passes_would_take_longer() -> None:
    needs_sums = Kept(0, gradients=400_000)
    assert chosen(steps(3000)).recomputed == 0
    found = chosen(steps(*[1900] * 9), needs_sums)
    assert found.recomputed > 0
    assert found.passes(1900) == 1


def test_a_rare_large_step_is_cut_up_and_not_prepared_for() -> None:
    needs_sums = Kept(0, gradients=400_000)
    found = chosen(Steps(longest=300, largest=9000, some=[1500] * 99 + [1700]), needs_sums)
    assert found.recomputed == 0
    assert (found.passes(1500), found.passes(1700)) == (1, 3)


def test_what_was_asked_for_is_the_only_choice() -> None:
    assert choose([0], 10, room, Kept(0), steps(1300, longest=1300)) == PassPlan(1200, 1200, 0)
    assert choose([10], 10, room, Kept(0), steps(1300, longest=1300)) == PassPlan(12_000, 12_000, 10)


def test_a_plan_that_found_no_memory_is_lowered() -> None:
    assert PassPlan(1000, 500, 3).lowered(0.9) == PassPlan(900, 450, 3)
