"""Real tokens a second of training, ours and its peers', on the same card, model and rows, in one run.

    python bench/train.py --out bench/results/DATE-CARD-train.jsonl [--llama-factory FOLDER] [--trl FOLDER]
    python bench/train.py --shape 0.5b --rows long8k --llama-factory FOLDER --out …    # small models, long rows
    python bench/train.py --only "full, one card|full, two cards" --out …              # on a machine with two GPUs
    python bench/train.py --shape tiny --out /tmp/rehearsal.jsonl                      # tries every variant on the CPU

``--llama-factory`` and ``--trl`` are folders with LLaMA-Factory 0.9.5 and TRL 1.16.0 and their own requirements (pip
install --target), which are put before this project's packages for those variants alone. Prints and appends a JSON
line a variant: tokens a second in three windows, seconds from the start of the process to the end of its first step,
peak memory. Other variants than the card can hold, or whose folder is not given, are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import card_memory
import machine
import own_trainer
import workload
from processes import BenchError, run
from train_variants import Ours, Peer, Variant, variants

HERE = Path(__file__).parent
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "liger-kernel")


def main() -> int:
    """Measure every variant, one process after the other."""
    # Nothing that was started outlives this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = _options()
    wanted = _wanted(options)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="finetune-bench-", dir=options.folder) as name:
        bench = Bench(Path(name), options)
        bench.get_ready(wanted)
        print(f"[{time.monotonic() - began:6.1f}] model, rows and prepared data are there", flush=True)
        for variant, following in zip(wanted, [*list(wanted)[1:], None], strict=True):
            if time.monotonic() - began > options.seconds:
                print(f"left out for lack of time: {variant}", flush=True)
                continue
            line = bench.measure(variant, wanted[variant], (following, wanted[following]) if following else None)
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"[{time.monotonic() - began:6.1f}] {json.dumps(line)}", flush=True)
    return 0


class Bench:
    """One run: a model and rows, and the processes that train on them in turn."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder = folder
        self._options = options
        self._is_tiny = options.shape == "tiny"
        self._rows = workload.write_rows(folder / "data", options.rows, self._is_tiny)
        self._unprepared: dict[str, BenchError] = {}
        self._waiting: dict[str, subprocess.Popen[str]] = {}

    def get_ready(self, wanted: dict[str, Variant]) -> None:
        """Write the model and have our jobs' rows prepared, all at once: nothing of that shall run beside a measurement."""
        self._start_peer(next(iter(wanted.items())))
        if self._options.model:
            (self._folder / "model").symlink_to(self._options.model.resolve())
        else:
            run([sys.executable, __file__, "--write-model", str(self._folder / "model"), self._options.shape])
        ours = {name: variant for name, variant in wanted.items() if isinstance(variant, Ours)}
        self._unprepared = own_trainer.prepare(self._folder, ours, self._options.rows, self._is_tiny)

    def measure(self, name: str, variant: Variant, following: tuple[str, Variant] | None) -> dict[str, Any]:
        """The line of one variant. The peer that follows may import meanwhile, so that its turn begins with its work."""
        about = {"bench": "train", "variant": name, "shape": self._options.shape, "rows": self._options.rows}
        about |= {**machine.about(PACKAGES), "data": self._rows}
        limit = variant.memory_gib if isinstance(variant, Ours) else None
        try:
            with card_memory.only(limit), card_memory.watched() as memory:
                found = self._train(name, variant, following)
        except (BenchError, ValueError) as error:
            return {**about, "error": str(error)}
        # A peer's packages are its own.
        return {**about, **found, **memory}

    def _train(self, name: str, variant: Variant, following: tuple[str, Variant] | None) -> dict[str, Any]:
        if isinstance(variant, Ours):
            if name in self._unprepared:
                raise self._unprepared[name]
            if following:
                self._start_peer(following)
            return own_trainer.train(self._folder, name, variant, self._is_tiny)
        self._start_peer((name, variant))
        process = self._waiting.pop(name)
        if following:
            self._start_peer(following)
        return self._finish_peer(name, process)

    def _start_peer(self, named: tuple[str, Variant]) -> None:
        name, variant = named
        if not isinstance(variant, Peer) or name in self._waiting:
            return
        asked = {"folder": str(self._folder), "settings": variant.settings, "tiny": self._is_tiny, "began": time.time()}
        asked["cutoff"] = workload.ROWS[self._options.rows].cutoff
        environment = {**os.environ, "PYTHONPATH": str(getattr(self._options, variant.option)), "HF_HUB_OFFLINE": "1"}
        if self._is_tiny:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        command = [sys.executable, str(HERE / variant.program), json.dumps(asked)]
        with self._log(name).open("w") as log:
            self._waiting[name] = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, text=True
            )

    def _finish_peer(self, name: str, process: subprocess.Popen[str]) -> dict[str, Any]:
        process.communicate("your turn\n")
        text = self._log(name).read_text(errors="replace")
        answers = [line for line in text.splitlines() if line.startswith("RESULT ")]
        if process.returncode or not answers:
            raise BenchError(f"{name} ended with {process.returncode}", text)
        found: dict[str, Any] = json.loads(answers[-1].removeprefix("RESULT "))
        return found

    def _log(self, name: str) -> Path:
        return self._folder / f"{name.replace(' ', '-').replace(',', '')}.log"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines are added to this file")
    parser.add_argument("--shape", choices=workload.SHAPES, default="7b")
    parser.add_argument("--rows", choices=workload.ROWS, default="chat")
    parser.add_argument("--model", type=Path, help="folder that `train.py --write-model FOLDER SHAPE` wrote before")
    parser.add_argument("--llama-factory", type=Path, help="folder with LLaMA-Factory's packages")
    parser.add_argument("--trl", type=Path, help="folder with TRL's packages")
    parser.add_argument("--only", help="variants, separated by |")
    parser.add_argument("--seconds", type=float, default=3600, help="start no further variant after so long")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    return parser.parse_args()


def _wanted(options: argparse.Namespace) -> dict[str, Variant]:
    """The variants to measure. Ends the program where one of ``--only`` is unknown or cannot be measured."""
    known = variants(options.rows)
    if unknown := set(options.only.split("|") if options.only else ()) - set(known):
        sys.exit(f"--only: found {', '.join(sorted(unknown))}, expected some of: {' | '.join(known)}")
    chosen = options.only.split("|") if options.only else list(known)
    reasons = {name: _missing(known[name], options) for name in chosen}
    for name, reason in reasons.items():
        if reason:
            print(f"left out: {name}: {reason}", flush=True)
    return {name: known[name] for name in chosen if not reasons[name]}


def _missing(variant: Variant, options: argparse.Namespace) -> str | None:
    if isinstance(variant, Peer):
        option = f"--{variant.option.replace('_', '-')}"
        return None if getattr(options, variant.option) else f"{option} is not given"
    cards = machine.count_cards()
    if options.shape != "tiny" and variant.gpus > cards:
        return f"it needs {variant.gpus} GPUs, there are {cards}"
    return None


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write-model"]:
        workload.write_model(Path(sys.argv[2]), sys.argv[3], "cpu" if sys.argv[3] == "tiny" else "cuda")
        sys.exit(0)
    sys.exit(main())
