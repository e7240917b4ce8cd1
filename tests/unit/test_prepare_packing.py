"""Packing puts every row into exactly one sequence that has room for it."""

import json
import random
from pathlib import Path

import pytest

from finetune_trainer.prepare.packing import longest_row, pack

GOLDEN = Path(__file__).parent / "data" / "llamafactory" / "golden.json"


@pytest.mark.parametrize("seed", range(5))
def test_every_row_is_packed_once_and_no_sequence_overflows(seed: int) -> None:
    chance = random.Random(seed)
    lengths = [chance.randint(1, 100) for _ in range(2500)]
    packs = list(pack(lengths, 100))
    assert sorted(index for indices in packs for index in indices) == list(range(2500))
    assert max(sum(lengths[index] for index in indices) for indices in packs) <= 100
    # Rows of 50 tokens on average in sequences of 100: a packing worth its name leaves hardly any room.
    assert len(packs) < 1.05 * sum(lengths) / 100


@pytest.mark.parametrize("template", ["qwen", "yi"])
def test_rows_are_packed_as_llama_factory_packed_them(template: str) -> None:
    expected = json.loads(GOLDEN.read_text())[f"{template}|packs"]
    lengths = sorted(length for indices in expected for length in indices)
    packed = [[lengths[index] for index in indices] for indices in pack(lengths, longest_row(1024, packed=True))]
    assert packed == expected


def test_a_packed_sequence_keeps_a_place_for_padding() -> None:
    assert (longest_row(1024, packed=True), longest_row(1024, packed=False)) == (1023, 1024)


def test_rows_that_were_left_out_take_their_place_in_the_window() -> None:
    # LLaMA-Factory packs batches of 1000 rows as they were read, and drops rows of a batch before it packs it.
    lengths = [0] * 999 + [10] + [10] * 3
    assert list(pack(lengths, 100)) == [[999], [1002, 1001, 1000]]
