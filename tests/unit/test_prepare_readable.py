"""Files of a mounted volume that the stage's user may not read are named, with whose they are."""

import os
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_trainer.prepare.readable import refuse_unreadable

NOBODY = 65534


@pytest.fixture
def model() -> Iterator[Path]:
    """Not below pytest's own folder, which is for one user only."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "model"
        (folder / "lost+found").mkdir(parents=True)
        (folder / ".snapshot").mkdir()
        for file in ("config.json", "model.safetensors"):
            (folder / file).write_text("{}")
            (folder / file).chmod(0o644)
        for kept in ("lost+found", ".snapshot"):
            (folder / kept).chmod(0o700)
        folder.chmod(0o755)
        yield folder


def said_to_nobody(path: Path) -> StageFailure | None:
    """What a process without rights is told; only such a process meets a file that it may not read."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    receiving, sending = get_context("fork").Pipe(duplex=False)
    child = get_context("fork").Process(target=_as_nobody, args=(path, sending))
    child.start()
    told: tuple[int, str] | None = receiving.recv()
    child.join()
    return None if told is None else StageFailure(ExitCode(told[0]), told[1])


def _as_nobody(path: Path, told: Connection) -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    try:
        refuse_unreadable(path, "spec.model.source: pvc://models/tiny")
        told.send(None)
    except StageFailure as failure:
        told.send((int(failure.code), str(failure)))


def test_what_everybody_may_read_is_accepted_whatever_the_file_system_keeps_beside_it(model: Path) -> None:
    assert said_to_nobody(model) is None


def test_what_is_not_there_is_left_to_whoever_looks_for_it(model: Path) -> None:
    assert said_to_nobody(model / "none") is None


@pytest.mark.parametrize(
    ("hide", "named"),
    [
        (lambda model: (model / "model.safetensors").chmod(0o600), "model/model.safetensors may not"),
        (lambda model: model.chmod(0o700), "model may not"),
        (
            lambda model: [(model / name).chmod(0) for name in os.listdir(model) if "." in name[1:]],
            "and 1 more may not",
        ),
    ],
    ids=["a file", "the folder", "two files"],
)
def test_what_may_not_be_read_is_named_with_its_owner_and_what_to_do(
    model: Path, hide: Callable[[Path], object], named: str
) -> None:
    hide(model)
    failure = said_to_nobody(model)
    assert failure is not None
    assert failure.code == ExitCode.SOURCE_UNREACHABLE
    assert named in str(failure)
    for word in ("pvc://models/tiny", f"user {NOBODY}", f"belongs to user {os.getuid()} and group", "chmod -R a+rX"):
        assert word in str(failure)
