"""How a conversation is cut to the longest sequence, and what of it is learnt."""

import pytest

from finetune_operator.api.tokenization import Tokenization
from finetune_trainer.prepare.labels import label_turns, share_budget
from finetune_trainer.sequences import IGNORED

TURNS = [([1, 2, 3], [4, 5]), ([6, 7], [8, 9, 10])]


@pytest.mark.parametrize(
    ("prompt", "answer", "budget", "kept"),
    [
        (10, 10, 100, (10, 10)),  # all fits
        (100, 10, 50, (40, 10)),  # short answer: the prompt is cut
        (10, 100, 50, (10, 40)),  # short prompt: the answer is cut
        (100, 100, 50, (25, 25)),  # both long: shared in proportion
        (300, 100, 50, (38, 12)),
        (1000, 20, 32, (32, 0)),  # a prompt this long leaves nothing of the answer
        (10, 25, 50, (10, 25)),  # exactly half is not "short"
        (0, 10, 5, (0, 5)),
    ],
)
def test_a_turn_is_cut_by_llama_factorys_rule(prompt: int, answer: int, budget: int, kept: tuple[int, int]) -> None:
    assert share_budget(prompt, answer, budget) == kept


def test_only_answers_are_learnt() -> None:
    example = label_turns(TURNS, Tokenization(), 100)
    assert example.input_ids == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert example.labels == [IGNORED] * 3 + [4, 5] + [IGNORED] * 2 + [8, 9, 10]
    assert example.trained == 5


def test_prompts_are_learnt_where_asked_for() -> None:
    example = label_turns(TURNS, Tokenization(train_on_prompt=True), 100)
    assert example.labels == example.input_ids


def test_with_masked_history_only_the_last_answer_is_learnt() -> None:
    example = label_turns(TURNS, Tokenization(mask_history=True), 100)
    assert example.input_ids == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert example.labels == [IGNORED] * 7 + [8, 9, 10]


def test_later_turns_are_left_out_once_the_budget_is_spent() -> None:
    assert label_turns(TURNS, Tokenization(), 5).input_ids == [1, 2, 3, 4, 5]


def test_with_masked_history_the_last_turn_is_kept_and_the_older_one_keeps_its_head() -> None:
    example = label_turns(TURNS, Tokenization(mask_history=True), 8)
    assert example.input_ids == [1, 2, 4, 6, 7, 8, 9, 10]
    assert example.labels == [IGNORED] * 5 + [8, 9, 10]
