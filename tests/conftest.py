"""What every test starts from."""

from pathlib import Path

import pytest

from finetune_operator.api.outcome import TERMINATION_LOG_VARIABLE


@pytest.fixture(autouse=True)
def _last_words_stay_in_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that run outside a pod would write their last words to this machine's /dev."""
    monkeypatch.setenv(TERMINATION_LOG_VARIABLE, str(tmp_path / "termination-log"))
