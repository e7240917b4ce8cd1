"""What the trainer writes down and says about its steps."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from finetune_trainer.train.entry import Entry
from finetune_trainer.train.log import TrainerLog, read_log
from finetune_trainer.train.plot import plot_losses, smoothed

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def entry(step: int = 20, **fields: object) -> Entry:
    known = {"total_steps": 200, "epoch": 0.5, "seconds": 24.0, "steps_done": step, "time": NOON, "loss": 0.123}
    return Entry(**{"step": step, **known, **fields})  # type: ignore[arg-type]


def test_a_line_has_llama_factorys_keys_and_a_few_more() -> None:
    speed = {
        "tokens_per_second": 123.45,
        "tflops_per_second": 485.61,
        "share_of_limit": 0.49101,
        "data_wait_share": 2e-4,
    }
    assert entry(learning_rate=9.8e-05, grad_norm=1.5, **speed).to_log() == {
        "current_steps": 20,
        "total_steps": 200,
        "loss": 0.123,
        "lr": 9.8e-05,
        "epoch": 0.5,
        "percentage": 10.0,
        "elapsed_time": "0:00:24",
        "remaining_time": "0:03:36",
        "grad_norm": 1.5,
        "tokens_per_second": 123.5,
        "tflops_per_second": 485.61,
        "share_of_limit": 0.491,
        "data_wait_share": 0.0002,
        "timestamp": "2026-01-02T12:00:00.000+00:00",
    }


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"learning_rate": 9.8e-05}, "step 20/200  loss 0.123  lr 9.8e-05  1.2 s/step  eta 3m36s"),
        ({"loss": None, "eval_loss": 2.5}, "step 20/200  eval loss 2.5  1.2 s/step  eta 3m36s"),
        ({"seconds": 20 * 60.0}, "step 20/200  loss 0.123  60 s/step  eta 3h00m"),
        ({"step": 199, "steps_done": 20}, "step 199/200  loss 0.123  1.2 s/step  eta 1s"),
    ],
)
def test_a_step_is_told_in_one_line(fields: dict[str, object], line: str) -> None:
    assert entry(**fields).to_line() == line


def test_before_the_first_step_no_pace_is_known() -> None:
    beginning = entry(step=0, steps_done=0, seconds=0.1)
    assert (beginning.seconds_a_step, beginning.seconds_left, beginning.percent) == (0, 0, 0)


def test_a_resumed_log_goes_on_without_the_steps_that_are_done_again(tmp_path: Path) -> None:
    log = TrainerLog(tmp_path / "trainer_log.jsonl")
    log.begin(0)
    for step in (10, 20, 30):
        log.append(entry(step))
    log.begin(20)
    log.append(entry(30, loss=0.1))
    lines = read_log(tmp_path / "trainer_log.jsonl")
    assert [(line["current_steps"], line["loss"]) for line in lines] == [(10, 0.123), (20, 0.123), (30, 0.1)]


def test_the_end_of_a_training_is_told_anew_when_only_its_result_was_missing(tmp_path: Path) -> None:
    log = TrainerLog(tmp_path / "trainer_log.jsonl")
    log.append(entry(200))
    log.append(entry(200, loss=None))
    log.begin(200)
    assert [line.get("loss") for line in read_log(tmp_path / "trainer_log.jsonl")] == [0.123]


def test_a_new_training_begins_a_new_log(tmp_path: Path) -> None:
    log = TrainerLog(tmp_path / "trainer_log.jsonl")
    log.begin(0)
    log.append(entry(10))
    log.begin(0)
    assert read_log(tmp_path / "trainer_log.jsonl") == []


def test_a_line_that_a_killed_process_left_half_written_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "trainer_log.jsonl"
    path.write_text(json.dumps(entry(10).to_log()) + '\n{"current_steps": 2')
    TrainerLog(path).begin(10)
    assert [line["current_steps"] for line in read_log(path)] == [10]


def test_losses_are_smoothed_and_begin_where_they_began() -> None:
    assert smoothed([]) == []
    assert smoothed([3.0]) == [3.0]
    values = smoothed([2.0, 0.0, 2.0, 0.0] * 20)
    assert values[0] == 2.0
    assert max(values[-10:]) - min(values[-10:]) < 0.5


def test_the_picture_is_a_png_and_is_not_drawn_without_losses(tmp_path: Path) -> None:
    path = tmp_path / "training_loss.png"
    plot_losses([], path)
    assert not path.exists()
    plot_losses([entry(10).to_log(), entry(20, eval_loss=0.5).to_log()], path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
