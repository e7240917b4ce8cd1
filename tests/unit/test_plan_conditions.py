"""set_condition: what metav1.Condition asks for."""

from __future__ import annotations

import datetime as dt

from finetune_operator.plan.conditions import ending, find, remove_condition, set_condition, truncate
from finetune_operator.plan.step import false, true
from manifest_builders import NOW

LATER = NOW + dt.timedelta(minutes=5)


def test_the_transition_time_moves_when_the_status_flips() -> None:
    first = set_condition([], false("Ready", "Training"), generation=1, now=NOW)
    second = set_condition(first, true("Ready", "Serving"), generation=2, now=LATER)
    assert [entry.last_transition_time for entry in second] == ["2026-11-21T12:05:00Z"]
    assert second[0].observed_generation == 2


def test_the_transition_time_stays_when_only_reason_message_or_generation_change() -> None:
    first = set_condition([], false("Ready", "Training"), generation=1, now=NOW)
    second = set_condition(first, false("Ready", "Merging", "merges"), generation=2, now=LATER)
    assert second[0].last_transition_time == "2026-11-21T12:00:00Z"
    assert (second[0].reason, second[0].message, second[0].observed_generation) == ("Merging", "merges", 2)


def test_setting_the_same_again_changes_nothing() -> None:
    first = set_condition([], false("Ready", "Training", "trains"), generation=1, now=NOW)
    assert set_condition(first, false("Ready", "Training", "trains"), generation=1, now=LATER) == first


def test_other_conditions_stay_as_they_are() -> None:
    first = set_condition([], true("Prepared", "Succeeded"), generation=1, now=NOW)
    second = set_condition(first, false("Ready", "Training"), generation=2, now=LATER)
    assert second[0] == first[0]
    assert remove_condition(second, "Ready") == first
    assert find(second, "Ready") == second[1]


def test_a_message_is_cut_to_what_the_schema_admits() -> None:
    message = set_condition([], true("Failed", "InvalidData", "x" * 5000), generation=1, now=NOW)[0].message
    assert len(message.encode()) == 4096
    assert message.endswith("[…]")
    assert truncate("short") == "short"


def test_a_message_is_cut_by_bytes_between_characters() -> None:
    assert len(truncate("汉" * 4096).encode()) <= 4096
    assert truncate("汉" * 4096).endswith("汉 […]")
    assert ending("a\n" + "汉" * 10, 7) == "汉汉"


def test_what_a_terminal_would_obey_is_taken_out_of_messages() -> None:
    assert (
        truncate("row \x1b[2J\x1b]0;pwned\x07 says\tno\n\x9b31m")
        == "row \ufffd[2J\ufffd]0;pwned\ufffd says\tno\n\ufffd31m"
    )
