"""Processes are known by more than their pid."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from finetune_devcluster import launch
from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.node.processes import descendants
from finetune_devcluster.processes import Identity, await_launches, running, start_daemon, stop
from support_wait import eventually


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def identity_of(pid: int) -> Identity:
    identity = Identity.of(pid)
    assert identity
    return identity


def test_a_running_process_is_alive(sleeper: subprocess.Popen[bytes]) -> None:
    assert identity_of(sleeper.pid).is_alive()


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "an earlier boot"}])
def test_a_recycled_pid_is_neither_alive_nor_killed(
    sleeper: subprocess.Popen[bytes], change: dict[str, int | str]
) -> None:
    predecessor = replace(identity_of(sleeper.pid), **change)
    assert not predecessor.is_alive()
    predecessor.signal(signal.SIGKILL)
    stop(predecessor, grace_seconds=0)
    assert identity_of(sleeper.pid).is_alive()


def test_a_zombie_has_ended(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper.pid)
    identity.signal(signal.SIGKILL)
    eventually(lambda: not identity.is_alive())
    assert sleeper.returncode is None, "nobody has waited for it yet"


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout
        stubborn.stdout.readline()
        stop(identity_of(stubborn.pid), grace_seconds=0.2)
    assert stubborn.returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["sleep", "a b", "x) S 1 (y", ")"])
def test_the_start_time_is_read_past_any_command_name(name: str) -> None:
    fields = ["S", *(str(number) for number in range(4, 53))]
    assert launch.start_ticks(f"4242 ({name}) {' '.join(fields)}\n") == 22


def test_a_daemon_has_its_pid_file_and_its_own_session(tmp_path: Path) -> None:
    pid_file, log_file = tmp_path / "d.json", tmp_path / "d.log"
    start_daemon(["sleep", "60"], pid_file, log_file, dict(os.environ))
    identity = running(pid_file)
    assert identity
    try:
        assert os.getsid(identity.pid) != os.getsid(0)
        assert identity.pid in {int(e) for e in os.listdir("/proc") if e.isdecimal()}
        assert Path(f"/proc/{identity.pid}/cmdline").read_text() == "sleep\x0060\x00"
    finally:
        identity.signal(signal.SIGKILL)
    eventually(lambda: running(pid_file) is None)


def test_a_daemon_that_cannot_start_says_so_in_its_log(tmp_path: Path) -> None:
    start_daemon(["/no/such/program"], tmp_path / "d.json", tmp_path / "d.log", dict(os.environ))
    eventually(lambda: running(tmp_path / "d.json") is None)
    assert "cannot start /no/such/program" in (tmp_path / "d.log").read_text()


def test_a_daemon_whose_starter_was_killed_is_waited_for(tmp_path: Path) -> None:
    # Opening a FIFO for the log holds the daemon up, before it has its pid file, until somebody reads
    pid_file, log_file = tmp_path / "d.json", tmp_path / "d.log"
    os.mkfifo(log_file)
    start = "import os, sys; from pathlib import Path; from finetune_devcluster.processes import start_daemon; "
    start += "start_daemon(['sleep', '60'], Path(sys.argv[1]), Path(sys.argv[2]), dict(os.environ))"
    with subprocess.Popen([sys.executable, "-c", start, str(pid_file), str(log_file)]) as starter:
        eventually(lambda: len(descendants(starter.pid)) == 2, message="launcher and daemon run")
        starter.kill()
    awaiting = threading.Thread(target=await_launches, args=(tmp_path,))
    awaiting.start()
    assert not pid_file.exists()
    with log_file.open():
        awaiting.join(60)
        identity = running(pid_file)
        assert identity
        identity.signal(signal.SIGKILL)


def test_a_missing_pid_file_means_not_running(tmp_path: Path) -> None:
    assert running(tmp_path / "none.json") is None


@pytest.mark.parametrize("content", ["", "4242", '{"pid": 4242}'])
def test_a_pid_file_of_something_else_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "odd.json").write_text(content)
    with pytest.raises(DevclusterError, match=r"odd\.json: not a pid file"):
        running(tmp_path / "odd.json")
