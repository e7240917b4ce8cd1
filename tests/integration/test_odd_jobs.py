"""Every job that is odd and legal is prepared and trained for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import prepare_and_train
from job_cases import checked, write_case
from odd_jobs import ODD, OddJob
from tiny_models import save_base


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of every job, by its case."""
    folder = tmp_path_factory.mktemp("odd")
    save_base(folder / "base", num_hidden_layers=1)
    files: dict[str, str] = {}
    for number, odd in enumerate(ODD):
        place = folder / str(number)
        place.mkdir()
        run = checked(write_case(odd.job, folder / "base", place))
        file = place / "run.json"
        file.write_text(run.dump(), encoding="utf-8")
        files[str(file)] = odd.job.case
    done = subprocess.run(
        [sys.executable, prepare_and_train.__file__, *files],
        env={**os.environ, "OMP_NUM_THREADS": "1", "FINETUNE_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == len(ODD), done.stdout[-2000:] + done.stderr[-2000:]
    return {files[line["file"]]: line for line in map(json.loads, lines)}


def test_there_are_enough_odd_jobs_and_no_two_are_the_same() -> None:
    assert len({odd.job.case for odd in ODD}) == len(ODD) >= 40


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.job.case)
def test_an_odd_job_is_prepared_and_trained(results: dict[str, Any], odd: OddJob) -> None:
    result = results[odd.job.case]
    assert result["failure"] == ""
    assert {name: result["report"][name] for name in odd.reports} == odd.reports
    root = Path(result["file"]).parent / "work" / "job"
    trained = json.loads((root / "result.json").read_bytes())["train"]
    assert trained["steps"] >= 1
    assert any(
        (root / folder / "config.json").exists() or (root / folder / "adapter_config.json").exists()
        for folder in ("model", "adapter")
    )


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("a byte order mark", "begins with a byte order mark"),
        ("Windows line ends", "has Windows line ends"),
        ("special tokens in the text", "special tokens in their text"),
        ("checkpoints rarer than steps", "spec.checkpoints.steps"),
    ],
)
def test_what_is_odd_is_reported(results: dict[str, Any], case: str, said: str) -> None:
    report = results[case]["report"]
    assert any(said in text for text in report["warnings"]), report
