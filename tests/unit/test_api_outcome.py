"""How a stage's end is told: exit code, last words, and files that are replaced whole or not at all."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_operator.api.outcome import (
    MESSAGE_LIMIT,
    ExitCode,
    StageFailure,
    TerminationMessage,
    classify,
    run_stage,
)
from finetune_operator.api.result import write_whole


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ExitCode.STORAGE_FULL),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), ExitCode.STORAGE_FULL),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), ExitCode.STORAGE_FULL),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            ExitCode.STORAGE_FULL,
        ),
        (RuntimeError("I/O error: Read-only file system (os error 30)"), ExitCode.STORAGE_FULL),
        (MemoryError(), ExitCode.OUT_OF_MEMORY),
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), ExitCode.INTERNAL),
        (ValueError("what nobody expected"), ExitCode.INTERNAL),
    ],
)
def test_an_error_that_no_stage_expected_has_the_exit_code_of_its_cause(error: Exception, code: ExitCode) -> None:
    assert classify(error) is code


@pytest.mark.parametrize(("announce", "told"), [(True, "error: step 7: loss nan\n"), (False, "")])
def test_a_failure_is_told_once_where_another_process_repeats_it(
    capsys: pytest.CaptureFixture[str], announce: bool, told: str
) -> None:
    def fail() -> dict[str, int]:
        raise StageFailure(ExitCode.LOSS_NOT_FINITE, "step 7: loss nan", step=7)

    assert run_stage(fail, announce=announce) == ExitCode.LOSS_NOT_FINITE
    assert capsys.readouterr().err == told


def test_the_exit_code_is_the_stages_though_nobody_reads_what_it_says() -> None:
    program = (
        "import sys\n"
        "from finetune_operator.api.outcome import ExitCode, StageFailure, run_stage\n"
        "def fail(): raise StageFailure(ExitCode.PREEMPTED, 'saved')\n"
        "sys.exit(run_stage(fail))\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", program], stderr=writing, check=False)
    os.close(writing)
    assert done.returncode == ExitCode.PREEMPTED


def test_last_words_fit_into_what_kubernetes_keeps() -> None:
    encoded = TerminationMessage("InvalidData", "é" * 9000, {"rows": 3}).encode()
    assert len(encoded) <= MESSAGE_LIMIT
    assert json.loads(encoded)["figures"] == {"rows": 3}


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_what_does_not_fit_leaves_the_old_content_and_nothing_else(small_volume: Path) -> None:
    file = small_volume / "result.json"
    write_whole(file, b"old")
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, bytes(1 << 20))
    assert file.read_bytes() == b"old"
    assert [path.name for path in small_volume.iterdir()] == ["result.json"]
