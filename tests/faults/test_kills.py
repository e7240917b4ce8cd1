"""The campaign in short: what kill_campaign.py does a hundred times, and once with everything else that has a state."""

import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).with_name("kill_campaign.py")


def campaign(*options: str) -> None:
    done = subprocess.run([sys.executable, str(CAMPAIGN), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost nothing that must not be lost" in done.stdout


def test_five_kills_and_two_stops_lose_nothing_that_must_not_be_lost() -> None:
    campaign("--kills", "5", "--terms", "2", "--steps", "60", "--save-steps", "8")


@pytest.mark.campaign
@pytest.mark.parametrize("recipe", ["Full", "QLoRA", "unpacked", "early stopping", "epochs"])
def test_a_resumed_training_is_the_one_that_nobody_disturbed(recipe: str) -> None:
    campaign("--recipe", recipe, "--kills", "2", "--terms", "2", "--steps", "30", "--save-steps", "7")
