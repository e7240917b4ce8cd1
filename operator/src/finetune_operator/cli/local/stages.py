"""The stages of a job as child processes, with the contract that the images have in a cluster."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune_operator.api import conditions
from finetune_operator.api.outcome import TERMINATION_LOG_VARIABLE, ExitCode, TerminationMessage
from finetune_operator.api.run import RunConfig
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.local.folder import load_results
from finetune_operator.cli.local.inputs import RUN_JSON, device_environment
from finetune_operator.cli.local.process import Ended, run_child

Show = Callable[[str], None]
# Every update of a progress bar becomes a line here; ten a second would bury the rest.
LINES_FOR_PEOPLE = {"PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "10"}


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: the program of its image and the word that the program is given."""

    name: str
    program: str


PREPARE = Stage("prepare", "finetune-trainer")
TRAIN = Stage("train", "finetune-trainer")
MERGE = Stage("merge", "finetune-merger")


class StageFailed(CommandError):
    """A stage did not end well; the exit code is the stage's."""

    def __init__(self, stage: Stage, reason: str, message: str, code: int) -> None:
        super().__init__(message, code)
        self.stage = stage
        self.reason = reason

    def as_json(self) -> dict[str, str | int]:
        """For `-o json`."""
        return {
            "stage": self.stage.name,
            "reason": self.reason,
            "message": self.message,
            "exitCode": self.code,
        }


def stages_of(spec: FineTuneJobSpec) -> Iterator[Stage]:
    """The stages that the spec asks for, in order."""
    yield PREPARE
    yield TRAIN
    if spec.wants_merge:
        yield MERGE


def stages_left(config: RunConfig) -> list[Stage]:
    """The stages that have not finished yet."""
    results = load_results(config)
    return [stage for stage in stages_of(config.spec) if stage.name not in results]


def find_program(name: str) -> str:
    """Path of an image's command: of the same installation as this one, else on PATH. Raises CommandError."""
    folder = Path(sys.executable).parent
    found = shutil.which(name, path=str(folder)) or shutil.which(name)
    if found is None:
        package = name.replace("finetune-", "images/")
        raise CommandError(f"{name}: not found in {folder} nor on PATH; install it: pip install ./{package}")
    return found


def run_stage(stage: Stage, config: RunConfig, show: Show, lock: int) -> None:
    """Run one stage to its end. Raises StageFailed.

    The stage holds the folder's lock too: should this process be killed, no second trainer may start beside the first.
    """
    root = Path(config.root)
    last_words = root / f"termination-{stage.name}.json"
    last_words.unlink(missing_ok=True)
    last_line = ""

    def pass_on(line: str) -> None:
        nonlocal last_line
        last_line = line
        show(f"{stage.name} | {line}")

    arguments = [find_program(stage.program), stage.name, "--run", str(root / RUN_JSON)]
    environment = {TERMINATION_LOG_VARIABLE: str(last_words), **device_environment(), **LINES_FOR_PEOPLE}
    ended = run_child(arguments, environment, pass_on, keep_open=[lock])
    if ended.code != ExitCode.DONE or ended.stopped_by:
        raise _failure(stage, config, ended, _read(last_words), last_line)


def _read(last_words: Path) -> TerminationMessage | None:
    try:
        return TerminationMessage.decode(last_words.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return None


def _failure(
    stage: Stage, config: RunConfig, ended: Ended, words: TerminationMessage | None, last_line: str
) -> StageFailed:
    if ended.stopped_by:
        text = f"stopped by {ended.stopped_by.name}; the same command goes on where it stopped"
        reason, code = "Stopped", ended.code or 128 + ended.stopped_by
    elif words:
        text, reason, code = f"{words.reason}: {words.message}", words.reason, ended.code
    else:
        text, reason, code = _without_words(ended, last_line), conditions.INFRASTRUCTURE, ended.code
    return StageFailed(stage, reason, f"{config.name}: {stage.name}: {text}", code)


def _without_words(ended: Ended, last_line: str) -> str:
    how = f"killed by {ended.killed_by.name}" if ended.killed_by else f"ended with exit code {ended.code}"
    if ended.killed_by is signal.SIGKILL:
        how += ", as the kernel does when memory runs out"
    return f"{how} and left no message; its last line: {last_line or '(none)'}"
