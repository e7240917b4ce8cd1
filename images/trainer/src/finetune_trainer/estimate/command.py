"""``finetune-trainer estimate``: prints what GPU memory each run would take. Nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig, load_run
from finetune_trainer.estimate.capacity import Verdict
from finetune_trainer.estimate.estimate import Estimate
from finetune_trainer.estimate.prepared import estimate_run
from finetune_trainer.estimate.telling import lines, refusal
from finetune_trainer.prepare.base_model import download_tokenizer, mounted_model


def show_estimates(run_files: Sequence[Path], *, as_json: bool) -> int:
    """Print the estimate of every run. One that fails is told on stderr, and the others are printed all the same.

    Returns the exit code of the first that failed or cannot fit, or 0.
    """
    codes = []
    with tempfile.TemporaryDirectory(prefix="finetune-models-") as folder:
        for file in run_files:
            try:
                codes.append(_show(file, Path(folder), as_json=as_json))
            except StageFailure as failure:
                codes.append(failure.code)
                _complain(file.stem, failure.message)
    return next((code for code in codes if code), ExitCode.DONE)


def _show(file: Path, downloads: Path, *, as_json: bool) -> int:
    run = load_run(file)
    # Libraries print what they like; stdout is for estimates alone.
    with contextlib.redirect_stdout(sys.stderr):
        found = _estimate(run, downloads)
    if as_json:
        print(json.dumps({"job": run.name, **(found.as_report() if found else {})}), flush=True)
    elif found is None:
        print(f"{run.name}: trains on the CPU, and takes no GPU's memory", flush=True)
    else:
        print("\n".join(lines(run.name, run.spec, found)), flush=True)
    if found is not None and found.verdict is Verdict.TOO_LARGE:
        raise refusal(run.spec, found)
    return ExitCode.DONE


def _estimate(run: RunConfig, downloads: Path) -> Estimate | None:
    """Of a hub's model, the configuration is all that is fetched. None for a job without GPUs."""
    if run.spec.resources.gpus_per_node == 0:
        return None
    folder = mounted_model(run) or download_tokenizer(run.model_copy(update={"root": str(downloads)}))
    found = estimate_run(run, folder, run.spec.tokenization.cutoff_len)
    if isinstance(found, str):
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"spec.model.source: {run.spec.model.source}: GPU memory cannot be predicted ({found}); see whether the folder "
            "is that of a causal language model",
        )
    return found


def _complain(job: str, message: str) -> None:
    for line in message.splitlines():
        print(f"error: {job}: {line}", file=sys.stderr, flush=True)
