"""Several processes end together, and a process that hangs is ended with its stacks told, however it hangs."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from finetune_devcluster.node.processes import start_time
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import WatchdogBounds
from finetune_trainer.train import stacks, supervise
from finetune_trainer.train.stacks import FILE_VARIABLE
from finetune_trainer.train.supervise import Failed, Rank
from finetune_trainer.train.watchdog import Watchdog
from support_wait import eventually

FOREVER = "import threading; threading.Event().wait(60)"
BEGIN = (
    "import os; from finetune_trainer.train.rank import begin_rank; begin_rank(); "
    f"open(os.environ['{FILE_VARIABLE}'] + '.begun', 'w')\n"
)
PATIENT = Watchdog(WatchdogBounds())


def hasty() -> Watchdog:
    return Watchdog(WatchdogBounds(seconds=1, seconds_otherwise=2))


class Processes:
    """Starts processes as ranks, in folders of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ranks: list[Rank] = []

    def start(self, code: str) -> Rank:
        folder = self._folder / f"rank-{len(self.ranks)}"
        self.ranks.append(Rank.start([sys.executable, "-c", code], os.environ, folder))
        return self.ranks[-1]

    def begun(self, code: str) -> Rank:
        """Started, and past ``BEGIN``: what the machine takes to start a process is no hang."""
        rank = self.start(code)
        eventually(lambda: (rank.folder / "stacks.begun").exists(), message="the process has begun")
        return rank

    def supervise(self, watchdog: Watchdog = PATIENT) -> Failed | None:
        return supervise.supervise(self.ranks, watchdog)


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processes:
    monkeypatch.setattr(supervise, "SECONDS_TO_END", 0.5)
    monkeypatch.setattr(stacks, "SECONDS_TO_WRITE", 60.0)
    return Processes(tmp_path)


def test_all_processes_done_is_success(processes: Processes) -> None:
    processes.start("pass")
    processes.start("pass")
    assert processes.supervise() is None


def test_when_one_process_fails_the_others_are_ended(processes: Processes) -> None:
    waiting = processes.start(FOREVER)
    processes.start("raise SystemExit(73)")
    assert processes.supervise() == Failed(rank=1, code=73)
    assert waiting.process.wait(60) == -signal.SIGKILL


def test_a_process_that_was_killed_is_told_by_its_signal(processes: Processes) -> None:
    processes.start("import os; os.kill(os.getpid(), 9)")
    assert processes.supervise() == Failed(rank=0, code=-signal.SIGKILL)


def test_a_stop_signal_is_passed_on_to_every_process(processes: Processes, tmp_path: Path) -> None:
    code = (
        "import pathlib, signal\n"
        "stopped = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: exit(75))\n"
        "pathlib.Path({!r}).touch()\n"
        "while True: signal.pause()\n"
    )
    ranks = [processes.start(code.format(str(tmp_path / name))) for name in ("a", "b")]

    def stop_when_ready() -> None:
        eventually(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())
        # Nobody else in this process takes the signal: it would end all tests.
        eventually(lambda: signal.getsignal(signal.SIGTERM) is not before)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop_when_ready).start()
    failed = processes.supervise()
    assert failed is not None
    assert (failed.code, failed.told_to_stop) == (75, True)
    assert [each.process.wait(60) for each in ranks] == [75, 75]


HANGS = {
    "in Python": BEGIN + "import threading\nthreading.Event().wait(60)",
    "in C, holding the interpreter's lock": BEGIN + "import ctypes\nwhile True: ctypes.PyDLL(None).sleep(60)",
    "in a read that nobody answers": BEGIN + "import os\nos.read(os.pipe()[0], 1)",
}


@pytest.mark.parametrize("hang", HANGS)
def test_a_process_that_hangs_is_ended_and_the_place_is_named(
    processes: Processes, capfd: pytest.CaptureFixture[str], hang: str
) -> None:
    hanging = processes.begun(HANGS[hang])
    with pytest.raises(StageFailure) as failure:
        processes.supervise(hasty())
    assert failure.value.code is ExitCode.NO_PROGRESS
    assert re.search(r"process 0 is at \S+:\d+ in \S+", failure.value.message)
    assert hanging.process.wait(60) == -signal.SIGKILL
    told = capfd.readouterr().err
    assert f"--- stacks of process 0 (pid {hanging.process.pid}) ---" in told
    assert 'File "<string>", line 3 in <module>' in told


def test_a_process_that_cannot_answer_is_described_by_the_kernels_state(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "SECONDS_TO_WRITE", 2.0)
    stopped = processes.begun(BEGIN + "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)")
    with pytest.raises(StageFailure, match=r"process 0 is at it cannot answer; State: T \(stopped\)"):
        processes.supervise(hasty())
    assert stopped.process.wait(60) == -signal.SIGKILL


def test_one_silent_process_is_no_hang_while_another_goes_on(processes: Processes) -> None:
    processes.begun(BEGIN + "import signal; signal.sigtimedwait([signal.SIGUSR2], 6)")
    code = BEGIN + "import signal\nfor step in range(30):\n  signal.sigtimedwait([signal.SIGUSR2], 0.2)\n"
    processes.begun(code + "  os.write(int(os.environ['FINETUNE_HEARTBEAT']), b'step %d\\n' % step)")
    assert processes.supervise(Watchdog(WatchdogBounds(seconds=3, seconds_otherwise=4))) is None


def test_a_process_dies_with_its_launcher(tmp_path: Path) -> None:
    trainer = (
        f"{BEGIN}import os, pathlib, signal\npathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "signal.pause()\n"
    )
    launcher = (
        "import os, sys, pathlib, signal\n"
        "from finetune_trainer.train.supervise import Rank\n"
        f"Rank.start([sys.executable, '-c', {trainer!r}], os.environ, pathlib.Path({str(tmp_path / 'rank')!r}))\n"
        "signal.pause()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", launcher])
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    child = int((tmp_path / "pid").read_text())
    process.kill()
    process.wait()
    eventually(lambda: not alive(child))


def alive(pid: int) -> bool:
    return start_time(pid) is not None
