"""A tracker is told every line of the log, in order and once, whatever fails on the way."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.tracking import follow as following
from finetune_trainer.tracking.follow import Ending, LogReader, follow
from finetune_trainer.tracking.start import MLFLOW, TENSORBOARD, WANDB, Trackers, wanted
from finetune_trainer.tracking.tracker import Line, Outcome, grouped_figures, plain_figures, settings
from trainer_runs import make_run


class Notebook:
    """A tracker that keeps what it is told, and fails as often as it is asked to."""

    def __init__(self, ending: Ending, *, fails_opening: int = 0, fails_reporting: int = 0) -> None:
        self.lines: list[Line] = []
        self.outcome: Outcome | None = None
        self.opened = 0
        self._ending = ending
        self._failures = {"open": fails_opening, "report": fails_reporting}

    def open(self) -> str:
        self._fail("open")
        self.opened += 1
        return "notebook"

    def report(self, lines: Sequence[Line]) -> None:
        self._fail("report")
        self.lines += lines
        self._ending.tell("finished")

    def close(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def _fail(self, what: str) -> None:
        if self._failures[what]:
            self._failures[what] -= 1
            raise ConnectionError("nobody there\nat all")


def write(path: Path, *steps: int, end: str = "\n") -> Path:
    text = "\n".join(json.dumps({"current_steps": step, "loss": 1.0}) for step in steps)
    path.write_text(text + end)
    return path


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(following, "SECONDS_BETWEEN_TRIES", 0.01)


def ended(word: str = "finished") -> Ending:
    ending = Ending()
    ending.tell(word)
    return ending


@pytest.mark.parametrize(
    "failures", [{}, {"fails_opening": 3}, {"fails_reporting": 2}, {"fails_opening": 1, "fails_reporting": 1}]
)
def test_lines_wait_until_they_can_be_sent(tmp_path: Path, failures: dict[str, int]) -> None:
    ending = Ending()
    notebook = Notebook(ending, **failures)
    said: list[str] = []
    trouble = follow(notebook, LogReader(write(tmp_path / "log", 1, 2, 3)), ending, said.append, said.append)
    assert trouble == ""
    assert [line["current_steps"] for line in notebook.lines] == [1, 2, 3]
    assert (notebook.opened, notebook.outcome) == (1, Outcome.FINISHED)
    complaints = [text for text in said if "cannot be reported to" in text]
    assert complaints == (
        ["cannot be reported to (ConnectionError: nobody there); training goes on, and it is tried again"]
        * bool(failures)
    )


def test_what_stands_in_the_way_at_the_end_is_returned(tmp_path: Path) -> None:
    ending = ended()
    notebook = Notebook(ending, fails_opening=9)
    trouble = follow(notebook, LogReader(write(tmp_path / "log", 1)), ending, str, str)
    assert trouble == "ConnectionError: nobody there"
    assert notebook.lines == []


@pytest.mark.parametrize(
    ("word", "outcome"),
    [("finished", Outcome.FINISHED), ("failed", Outcome.FAILED), ("stopped", Outcome.STOPPED), ("", Outcome.STOPPED)],
)
def test_a_trainer_that_was_killed_counts_as_stopped(tmp_path: Path, word: str, outcome: Outcome) -> None:
    ending = ended(word)
    notebook = Notebook(ending)
    follow(notebook, LogReader(tmp_path / "no log yet"), ending, str, str)
    assert notebook.outcome is outcome


def test_a_line_that_is_still_being_written_waits_for_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "log", 1, 2, end="")
    reader = LogReader(path)
    assert [line["current_steps"] for line in reader.new_lines()] == [1]
    with path.open("a") as file:
        file.write("\n")
    assert [line["current_steps"] for line in reader.new_lines()] == [2]
    assert reader.new_lines() == []


LOGGED: dict[str, Any] = {
    "current_steps": 3,
    "loss": 2.5,
    "lr": 1e-4,
    "epoch": 0.5,
    "grad_norm": 1.25,
    "tflops_per_second": 485.6,
    "share_of_limit": 0.491,
    "data_wait_share": 0.0002,
    "timestamp": "…",
}


def test_figures_bear_the_hugging_face_trainers_names() -> None:
    assert grouped_figures(LOGGED) == {
        "train/loss": 2.5,
        "train/learning_rate": 1e-4,
        "train/grad_norm": 1.25,
        "train/epoch": 0.5,
        "train/tflops_per_second": 485.6,
        "train/share_of_limit": 0.491,
        "train/data_wait_share": 0.0002,
    }
    assert plain_figures({"current_steps": 3, "eval_loss": 2.0, "epoch": 1.0}) == {"eval_loss": 2.0, "epoch": 1.0}
    assert grouped_figures({"current_steps": 3, "epoch": 1.0}) == {}


def test_only_the_trackers_that_are_asked_for_are_started(tmp_path: Path) -> None:
    key = {"apiKeySecret": {"name": "wandb"}, "project": "chats"}
    spec = {"tensorBoard": {}, "wandb": key, "mlflow": {"trackingUri": "http://mlflow", "experiment": "chats"}}
    assert wanted(make_run(tmp_path, tmp_path, tmp_path, tracking=spec)) == [TENSORBOARD, WANDB, MLFLOW]
    assert wanted(make_run(tmp_path, tmp_path, tmp_path, tracking={"tensorBoard": {"enabled": False}})) == []
    assert wanted(make_run(tmp_path, tmp_path, tmp_path)) == []


def test_a_key_that_cannot_be_read_is_told_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb = {"wandb": {"project": "chats", "apiKeySecret": {"name": "absent"}}}
    trackers = Trackers(make_run(tmp_path, tmp_path, tmp_path, tracking=wandb), reports=True)
    trackers.begin()
    trackers.end(Outcome.FINISHED)
    assert "W&B: cannot be reported to" in capsys.readouterr().out
    assert trackers.wait() == {"notTrackedWhole": "W&B"}


def test_a_run_is_described_without_the_names_of_secrets(tmp_path: Path) -> None:
    wandb = {"wandb": {"project": "chats", "apiKeySecret": {"name": "hidden"}}}
    told = settings(make_run(tmp_path, tmp_path, tmp_path, tracking=wandb))
    assert "hidden" not in json.dumps(told)
    assert told["training"]["learningRate"] == "1e-3"
