"""The command line of the trainer image."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_operator.api.outcome import TERMINATION_LOG_VARIABLE, ExitCode
from finetune_trainer.main import main
from trainer_runs import make_run, write_run


@pytest.fixture(autouse=True)
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the stage leaves its last words; what it does with SIGTERM is undone."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv(TERMINATION_LOG_VARIABLE, str(tmp_path / "termination"))
    yield tmp_path / "termination"
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_a_run_file_that_cannot_be_read_is_refused_in_the_last_words(tmp_path: Path, words: Path, stage: str) -> None:
    assert main([stage, "--run", str(tmp_path / "gone.json")]) == ExitCode.INVALID_SPEC
    assert "gone.json" in json.loads(words.read_bytes())["message"]


def test_training_without_prepared_rows_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "job", tmp_path, tmp_path / "rows.jsonl")
    assert main(["train", "--run", str(write_run(run, tmp_path))]) == ExitCode.INTERNAL
    assert "the prepare stage has to finish first" in capsys.readouterr().err


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["merge", "--run", "x"])
    assert caught.value.code == 2
