"""How many rows are held back: a share of them, or a number."""

from pathlib import Path

import pytest
from datasets import Dataset

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_trainer.prepare.split import split_rows
from finetune_trainer.prepare.stage import prepare
from trainer_runs import chat, identity_model, make_run, write_lines


@pytest.mark.parametrize(("size", "held_back"), [(0.2, 4), (5, 5), (1, 1), (0.01, 1)])
def test_a_float_is_a_share_of_the_rows_and_an_int_their_number(size: float, held_back: int) -> None:
    kept, held = split_rows(20, size, seed=42)
    assert (len(kept), len(held)) == (20 - held_back, held_back)
    assert sorted([*kept, *held]) == list(range(20))


@pytest.mark.parametrize("seed", [0, 42])
@pytest.mark.parametrize(
    ("count", "size"), [(2, 1), (2, 0.5), (3, 0.1), (10, 0.85), (91, 0.1), (1000, 0.001), (1001, 7), (12345, 0.33)]
)
def test_rows_are_split_as_the_datasets_library_splits_them(count: int, size: float, seed: int) -> None:
    expected = Dataset.from_dict({"row": range(count)}).train_test_split(test_size=size, seed=seed)
    kept, held = split_rows(count, size, seed)
    assert kept.tolist() == list(expected["train"]["row"])
    assert held.tolist() == list(expected["test"]["row"])


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (7, 7)])
def test_a_job_may_hold_back_a_number_of_rows(rows: int, expected: int, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [chat(f"question {index}", f"answer {index}") for index in range(20)])
    run = make_run(tmp_path / "job", identity_model(tmp_path / "model"), data, evaluation={"rows": rows})
    figures = prepare(run)
    assert (figures["rows"], figures["evaluationRows"]) == (20 - expected, expected)


def test_more_rows_than_there_are_cannot_be_held_back(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [chat("question", "answer")] * 3)
    run = make_run(tmp_path / "job", identity_model(tmp_path / "model"), data, evaluation={"rows": 3})
    with pytest.raises(StageFailure, match=r"spec.evaluation.rows: 3 of 3 rows leaves nothing") as caught:
        prepare(run)
    assert caught.value.code is ExitCode.INVALID_DATA
