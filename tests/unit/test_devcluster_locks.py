"""Locks between processes."""

import subprocess
import sys
from pathlib import Path

from finetune_devcluster.locks import exclusive

# Takes the lock, says so, keeps it until its input ends; removes the file first where it is told to.
HOLDER = """
import sys
from pathlib import Path
from finetune_devcluster.locks import exclusive
file = Path(sys.argv[1])
with exclusive(file, "holding"):
    print("held", flush=True)
    sys.stdin.read()
    if sys.argv[2:] == ["remove"]:
        file.unlink()
"""


def holder(file: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str], stream: str) -> str:
    found = getattr(process, stream)
    assert found
    return str(found.readline().strip())


def holder_after(first: subprocess.Popen[str], file: Path, *options: str) -> subprocess.Popen[str]:
    """A second process, once it waits for the first."""
    assert line(first, "stdout") == "held"
    assert file.exists()
    second = holder(file, *options)
    assert line(second, "stderr") == f"waiting for another process to finish holding (lock {file})"
    return second


def test_the_second_waits_until_the_first_lets_go(tmp_path: Path) -> None:
    with holder(tmp_path / "lock") as first, holder_after(first, tmp_path / "lock") as second:
        first.communicate()
        assert line(second, "stdout") == "held"
        second.communicate()


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    with holder(tmp_path / "lock") as first:
        assert line(first, "stdout") == "held"
        first.kill()
    with exclusive(tmp_path / "lock", "testing"):
        pass


def test_a_lock_whose_file_the_holder_removed_still_locks(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with holder(lock, "remove") as first, holder_after(first, lock) as second:
        first.communicate()
        # `second` waited on the removed file; it must hold the one that others will find.
        with holder_after(second, lock) as third:
            second.communicate()
            assert line(third, "stdout") == "held"
            third.communicate()
