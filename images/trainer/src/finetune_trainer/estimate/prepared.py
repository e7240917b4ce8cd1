"""The estimate as part of prepare: in report.json, and as a refusal before any GPU is taken."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_operator.api.run import RunConfig
from finetune_trainer.estimate.capacity import Verdict, known_capacity

if TYPE_CHECKING:
    from finetune_trainer.estimate.estimate import Estimate

_SHORTEST = 16
"""Tokens of the shortest sequence that anybody trains on: what does not fit with these does not fit at all."""
_OF = ("method", "lora", "quantization", "deepspeed", "tokenization", "training", "evaluation", "resources")


def refuse_too_large(run: RunConfig, folder: Path) -> None:
    """Raise StageFailure where no row whatever could be trained on, without having read any."""
    if run.spec.resources.gpus_per_node == 0 or known_capacity(run) is None:
        return
    found = estimate_run(run, folder, _SHORTEST)
    if not isinstance(found, str) and found.verdict is Verdict.TOO_LARGE:
        from finetune_trainer.estimate.telling import refusal

        raise refusal(run.spec, found)


def memory_report(run: RunConfig, longest: int, step: int, earlier: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The object ``memory`` of report.json, or None for a job without GPUs. ``earlier`` is returned if it still stands.

    ``longest`` is the length of the longest sequence, ``step`` that of the largest optimizer step, in tokens. Raises
    StageFailure where the training cannot fit.
    """
    if run.spec.resources.gpus_per_node == 0:
        return None
    identity = _identity(run, longest, step)
    if earlier is not None and earlier.get("identity") == identity:
        return dict(earlier)
    found = estimate_run(run, run.paths.base_model, longest, step)
    if isinstance(found, str):
        print(f"prepare: warning: GPU memory cannot be predicted: {found}", flush=True)
        return {"verdict": Verdict.UNKNOWN.value, "problem": found, "identity": identity}
    from finetune_trainer.estimate.telling import refusal, summary

    if found.verdict is Verdict.TOO_LARGE:
        raise refusal(run.spec, found)
    warning = "warning: " if found.verdict is Verdict.TIGHT else ""
    print(f"prepare: {warning}{summary(found)}", flush=True)
    return {**found.as_report(), "identity": identity}


def estimate_run(run: RunConfig, folder: Path, longest: int, step: int | None = None) -> Estimate | str:
    """The estimate of a job whose base model lies in ``folder``, or why there is none.

    ``longest`` and ``step`` as in ``memory_report``; without ``step``, all sequences are taken for the longest.
    """
    # About a kernel package that is optional, and names that transformers 6 will call otherwise.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # PyTorch and PEFT are slow to import; reading rows does without, and so do the processes that do it.
    from finetune_trainer.estimate.estimate import estimate
    from finetune_trainer.estimate.predict import Predictor
    from finetune_trainer.estimate.workload import workload_of

    try:
        workload = workload_of(run.spec, longest, step)
        return estimate(Predictor.of_folder(folder), run.spec, workload, known_capacity(run))
    # Architectures compute as they like, some by numbers that are not there; a job does not fail for that.
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _identity(run: RunConfig, longest: int, step: int) -> str:
    spec = run.spec.to_manifest()
    text = json.dumps([{key: spec.get(key) for key in _OF}, run.gpu_memory, longest, step], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
