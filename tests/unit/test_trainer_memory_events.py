"""The kernel's count of what it has killed for memory, in both versions of cgroups."""

from pathlib import Path

import pytest

from finetune_trainer.train import memory_events


@pytest.mark.parametrize(
    ("content", "kills"),
    [
        ("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", 5),
        ("oom_kill_disable 0\nunder_oom 0\n", 0),
    ],
    ids=["cgroup v2", "cgroup v1", "an old kernel"],
)
def test_kills_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, kills: int) -> None:
    (tmp_path / "events").write_text(content)
    monkeypatch.setattr(memory_events, "_FILES", (tmp_path / "absent", tmp_path / "events"))
    assert memory_events.kills() == kills


def test_a_machine_that_does_not_say_has_killed_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory_events, "_FILES", (tmp_path / "absent",))
    assert memory_events.kills() == 0
