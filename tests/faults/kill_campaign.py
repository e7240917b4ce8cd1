"""Kills a training at random moments until it is done, again and again, and compares it with one that nobody disturbed.

    python tests/faults/kill_campaign.py --kills 100 --terms 50

Every attempt is a process of its own that runs the real train stage. It is forked from this one, which has imported the
libraries already: so an attempt costs a second instead of ten, and more kills hit the training than its imports.
Exit code 1 where anything was lost that must not be.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import re
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from finetune_operator.api.outcome import TERMINATION_LOG_VARIABLE, ExitCode, exit_on_sigterm
from finetune_operator.api.run import RunConfig
from finetune_trainer.main import main as stage_main
from finetune_trainer.train.rank import LAUNCHER_VARIABLE
from tiny_models import save_base
from trainer_process import run_stages
from trainer_runs import IDENTITY, IDENTITY_ROWS, make_run, write_run

SIGNALS_A_RUN = 8
LATEST = 0.4
"""Moments are drawn from this share of an undisturbed attempt's time, so that every part of a training is hit."""
RECIPES: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "QLoRA": {"method": "QLoRA"},
    "Full": {"method": "Full", "lora": None},
    "unpacked": {"tokenization": {"cutoffLen": 96, "packing": "None"}, "evaluation": None},
    "early stopping": {
        "training": {"earlyStoppingPatience": 2, "learningRate": "5e-2", "scheduler": "Constant"},
        "evaluation": {"fraction": "0.2", "steps": 3, "perDeviceBatchSize": 4},
    },
    "epochs": {
        "training": {"maxSteps": None, "epochs": 4},
        "evaluation": {"fraction": "0.2", "interval": "Epoch", "perDeviceBatchSize": 4},
    },
}
"""What is trained: fields of the spec that differ from those of `make`."""
RESUMED = re.compile(r"train: (?:resuming from|starting at) step (\d+)")


@dataclass
class Disturbed:
    """One training that is disturbed until it is done."""

    run: RunConfig
    number: signal.Signals
    allowed: int
    """Steps that one signal may cost."""
    lost: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    attempts: int = 0
    sent: int = 0
    reached: int = 0
    """Last step that the attempt before had done."""

    @property
    def output(self) -> Path:
        """What the present attempt prints."""
        return Path(self.run.root).with_suffix(f".{self.attempts}.out")

    def attempt(self, moment: float | None) -> bool:
        """Start or go on, and send the signal after so many seconds. Whether there is something left to do."""
        self.attempts += 1
        child = start_training(self.run, self.output)
        hit = moment is not None and not ended_within(child, moment)
        if hit:
            os.kill(child, self.number)
            self.sent += 1
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self._check(code, hit)
        return code != ExitCode.DONE

    def _check(self, code: int, hit: bool) -> None:
        # It may have been done in the moment before the signal.
        expected = {int(ExitCode.DONE)}
        if hit:
            expected.add(-signal.SIGKILL if self.number is signal.SIGKILL else ExitCode.PREEMPTED)
        if code not in expected:
            self.problems.append(f"attempt {self.attempts}: exit code {code}\n{self.output.read_text()}")
        begun = RESUMED.search(self.output.read_text())
        if begun is None:
            return
        lost = max(0, self.reached - int(begun[1]))
        self.lost.append(lost)
        if lost > self.allowed:
            self.problems.append(f"attempt {self.attempts}: {lost} steps lost, {self.allowed} allowed")
        self.reached = max((line["current_steps"] for line in log_lines(self.run)), default=0)


def start_training(run: RunConfig, output: Path) -> int:
    """Fork a process that runs the train stage as the launcher's child would. Its process id."""
    sys.stdout.flush()
    # Made here, and the signal held back until somebody listens: a child that is killed at once may not have begun.
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = os.fork()
    if child:
        os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        return child
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ[TERMINATION_LOG_VARIABLE] = str(output.with_suffix(".words"))
    os.environ[LAUNCHER_VARIABLE] = str(os.getppid())
    exit_on_sigterm("told to stop before the stage began")
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    code = stage_main(["train", "--run", str(output.parent / f"{run.name}.run.json")])
    sys.stdout.flush()
    os._exit(code)


def ended_within(child: int, seconds: float) -> bool:
    """Whether the process ends by itself in that time."""
    descriptor = os.pidfd_open(child)
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def log_lines(run: RunConfig) -> list[dict[str, Any]]:
    """trainer_log.jsonl; its last line may be half written."""
    path = run.paths.trainer_log
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def curve(run: RunConfig) -> list[dict[str, Any]]:
    """All that training logged and that no clock has a part in."""
    speed = ("tokens_per_second", "tflops_per_second", "share_of_limit", "data_wait_share")
    timed = ("elapsed_time", "remaining_time", *speed, "timestamp")
    return [{key: value for key, value in line.items() if key not in timed} for line in log_lines(run)]


def weights(run: RunConfig) -> str:
    """sha256 of what was trained."""
    adapter, model = run.paths.adapter / "adapter_model.safetensors", run.paths.model / "model.safetensors"
    return hashlib.sha256((adapter if run.spec.is_adapter else model).read_bytes()).hexdigest()


def make(folder: Path, model: Path, name: str, options: argparse.Namespace) -> RunConfig:
    """A run by the recipe, with dropout, accumulation and packing, all of which a resumed one has to find again."""
    recipe = RECIPES[options.recipe]
    training = {
        "maxSteps": options.steps,
        "perDeviceBatchSize": 2,
        "gradientAccumulationSteps": 2,
        "learningRate": "2e-3",
        "scheduler": "CosineWithRestarts",
        **recipe.get("training", {}),
    }
    fields: dict[str, Any] = {
        "method": "LoRA",
        "lora": {"rank": 4, "dropout": "0.1"},
        "tokenization": {"cutoffLen": 96, "packing": "Segmented"},
        "evaluation": {"fraction": "0.2", "steps": 30, "perDeviceBatchSize": 4},
        "logging": {"steps": 1},
        "checkpoints": {"steps": options.save_steps, "limit": 2},
        **recipe,
        "training": {key: value for key, value in training.items() if value is not None},
    }
    given = {key: value for key, value in fields.items() if value is not None}
    run = make_run(folder / name, model, IDENTITY, name, dataset=IDENTITY_ROWS, **given)
    write_run(run, folder)
    return run


def undisturbed(run: RunConfig) -> float:
    """Run to the end; the seconds that training took."""
    ended = run_stages(run, "prepare")
    if ended.code:
        sys.exit(f"prepare ended with exit code {ended.code}\n{ended.output}")
    began = time.monotonic()
    output = Path(run.root).with_suffix(".out")
    code = os.waitstatus_to_exitcode(os.waitpid(start_training(run, output), 0)[1])
    if code:
        sys.exit(f"the undisturbed training ended with exit code {code}\n{output.read_text()}")
    return time.monotonic() - began


def disturb(model: Path, reference: RunConfig, options: argparse.Namespace, seconds: float) -> Iterator[Disturbed]:
    """Trainings, each disturbed a few times, until as many signals were sent as asked for."""
    for number, wanted, allowed in (
        (signal.SIGKILL, options.kills, options.save_steps),
        (signal.SIGTERM, options.terms, 1),
    ):
        sent, runs = 0, 0
        while sent < wanted:
            runs += 1
            name = f"{number.name.lower()}-{runs}"
            run = make(Path(reference.root).parent, model, name, options)
            prepared(reference, run)
            disturbed = Disturbed(run, number, allowed)
            until_done(disturbed, min(SIGNALS_A_RUN, wanted - sent), options.random, seconds)
            sent += disturbed.sent
            yield disturbed
            shutil.rmtree(run.root)


def prepared(reference: RunConfig, run: RunConfig) -> None:
    """What prepare left for the reference; the rows are the same."""
    run.paths.root.mkdir()
    shutil.copytree(reference.paths.data, run.paths.data)
    run.paths.base_model.symlink_to(reference.paths.base_model.resolve())


def until_done(disturbed: Disturbed, signals: int, chance: random.Random, seconds: float) -> None:
    """Disturb a training so many times, then let it end."""
    going_on = True
    while going_on and disturbed.sent < signals:
        going_on = disturbed.attempt(chance.uniform(0.02, LATEST * seconds))
    if going_on:
        disturbed.attempt(None)


def report(disturbed: Disturbed, reference: RunConfig) -> bool:
    """Print what came of one training; whether nothing was lost that must not be."""
    same_curve = curve(disturbed.run) == curve(reference)
    same_weights = weights(disturbed.run) == weights(reference)
    good = same_curve and same_weights and not disturbed.problems
    lost = " ".join(map(str, disturbed.lost))
    print(
        f"{disturbed.run.name:12} attempts {disturbed.attempts}  steps lost before each: {lost or '-'}  "
        f"losses {'equal' if same_curve else 'DIFFER'}  weights {'equal' if same_weights else 'DIFFER'}",
        flush=True,
    )
    for ours, theirs in zip_longest(curve(disturbed.run), curve(reference)):
        if ours != theirs:
            print(f"  first line that differs: {ours}\n  undisturbed:             {theirs}")
            break
    for problem in disturbed.problems:
        print(f"  {problem}")
    return good


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs to send")
    parser.add_argument("--terms", type=int, default=50, help="SIGTERMs to send")
    parser.add_argument("--steps", type=int, default=200, help="steps of a training")
    parser.add_argument("--save-steps", type=int, default=20, help="steps between two checkpoints")
    parser.add_argument("--recipe", choices=list(RECIPES), default="LoRA", help="what is trained")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args(arguments)
    options.random = random.Random(options.seed)
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign and print its record."""
    options = parse(arguments)
    libraries = "  ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "accelerate"))
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC  {platform.system()} {platform.machine()}  Python {platform.python_version()}  {libraries}"
    )
    told = f"{options.recipe}, {options.steps} steps, a checkpoint every {options.save_steps}"
    print(f"{told}, moments drawn with seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="finetune-campaign-") as folder:
        import_libraries(options.recipe)
        model = Path(folder) / "model"
        # Weights in blocks of 64 are what bitsandbytes quantises.
        save_base(model, num_hidden_layers=1, hidden_size=64, intermediate_size=128)
        reference = make(Path(folder), model, "reference", options)
        seconds = undisturbed(reference)
        print(f"undisturbed: {seconds:.1f} s, sha256 {weights(reference)[:16]}", flush=True)
        trainings, good, signals = 0, 0, 0
        for disturbed in disturb(model, reference, options, seconds):
            trainings += 1
            good += report(disturbed, reference)
            signals += disturbed.sent
    print(f"{signals} signals, {good} of {trainings} trainings lost nothing that must not be lost")
    return 0 if good == trainings else 1


def import_libraries(recipe: str) -> None:
    """What every attempt would import, with what the stage itself leaves out left out."""
    for name in ("deepspeed", "datasets", *(["bitsandbytes"] if recipe != "QLoRA" else [])):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    import finetune_trainer.train.session  # noqa: F401


if __name__ == "__main__":
    sys.exit(main())
