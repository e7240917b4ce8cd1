"""Prepares and trains many runs in one process: importing torch for each would take longer than all of them.

argv: run.json files. One JSON line a run: its file, what failed ("" where nothing did), and what prepare reported.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from finetune_operator.api.run import RunConfig, load_run
from finetune_trainer.train.rank import LAUNCHER_VARIABLE


def main(files: list[str]) -> None:
    runs = {file: load_run(Path(file)) for file in files}
    failures = {file: _attempt(run, "prepare", file) for file, run in runs.items()}
    # Training hides libraries that it does without, so that nothing can be prepared after it.
    os.environ[LAUNCHER_VARIABLE] = str(os.getppid())
    for file, run in runs.items():
        failure = failures[file] or _attempt(run, "train", file)
        report = json.loads(run.paths.report.read_bytes()) if run.paths.report.exists() else {}
        print("RESULT", json.dumps({"file": file, "failure": failure, "report": report}), flush=True)


def _attempt(run: RunConfig, stage: str, file: str) -> str:
    try:
        if stage == "prepare":
            from finetune_trainer.prepare.stage import prepare

            prepare(run)
        else:
            from finetune_trainer.train.stage import train

            train(run, Path(file))
    # Whatever it is, the other runs go on, and the test says it.
    except Exception:
        return f"{stage}: {traceback.format_exc()}"
    return ""


if __name__ == "__main__":
    main(sys.argv[1:])
