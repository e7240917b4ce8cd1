"""Jobs that an attacker has had a hand in, run through the real prepare stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from damaged_models import Damage
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_trainer.prepare.stage import prepare
from job_cases import JobCase, checked, write_case


def refused(folder: Path, base: Path, model: Damage | None = None, **case: object) -> tuple[ExitCode, str]:
    """With which exit code, and in which words, prepare refuses the job; no tokens are left that training could find."""
    run = checked(write_case(JobCase("attack", model=model, **case), base, folder))
    with pytest.raises(StageFailure) as caught:
        prepare(run)
    assert not run.paths.data.exists(), "training would find rows"
    return caught.value.code, caught.value.message
