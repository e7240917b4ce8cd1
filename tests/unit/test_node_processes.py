"""Processes that must not outlive the process node."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_devcluster.node.processes import (
    CommandError,
    ProcessRegistry,
    descendants,
    dies_with_parent,
    run_command,
    start_time,
)
from support_wait import eventually


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


def test_what_an_earlier_life_left_running_is_killed(tmp_path: Path) -> None:
    with sleeper() as process:
        ProcessRegistry(tmp_path).add(process.pid, "container main of ml/job")
        (found,) = ProcessRegistry(tmp_path).kill_leftovers()
        assert (found.pid, found.what) == (process.pid, "container main of ml/job")
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_another_process_under_the_same_number_is_left_alone(tmp_path: Path) -> None:
    with sleeper() as process:
        registry = ProcessRegistry(tmp_path)
        registry.add(process.pid, "container")
        (file,) = tmp_path.iterdir()
        file.write_text(file.read_text().replace(f'"started": {start_time(process.pid)}', '"started": 1'))
        assert registry.kill_leftovers() == []
        assert process.poll() is None
        process.kill()


def test_a_half_written_record_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text('{"pid": 1, "star')
    assert ProcessRegistry(tmp_path).kill_leftovers() == []


def test_a_process_that_has_ended_has_no_start_time() -> None:
    process = sleeper()
    assert start_time(process.pid) is not None
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not yet collected
    assert start_time(process.pid) is None
    process.wait()
    assert start_time(process.pid) is None


def test_a_process_dies_with_its_parent_however_that_ends() -> None:
    command = dies_with_parent("sleep", "600")
    script = f"import subprocess, time; print(subprocess.Popen({command!r}).pid, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        eventually(lambda: Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"sleep"))
        assert descendants(parent.pid) == [child]
        parent.kill()
    eventually(lambda: start_time(child) is None)


def test_a_helper_that_fails_is_reported_with_what_it_printed() -> None:
    with pytest.raises(CommandError, match=r"ls /no/such: exit 2: .*No such file"):
        asyncio.run(run_command("ls", "/no/such"))
