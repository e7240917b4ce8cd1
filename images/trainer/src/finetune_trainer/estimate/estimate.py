"""The memory estimate of a job: what it takes, whether that fits, and what to change if not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.training import Switch
from finetune_trainer.estimate.advice import Change, batch_words, batches, first_that_fits
from finetune_trainer.estimate.capacity import MARGIN, Verdict, cards_that_fit, verdict
from finetune_trainer.estimate.parts import Prediction
from finetune_trainer.estimate.predict import Predictor, devices_of
from finetune_trainer.estimate.workload import Workload, step_tokens, worthwhile_tokens
from finetune_trainer.train.pass_plan import MOST_TOKENS
from finetune_trainer.train.recompute import WITHOUT_RECOMPUTING


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job takes of each GPU, at the least that the job allows the trainer to take."""

    prediction: Prediction
    keeping: Prediction | None
    """With all activations kept for the backward pass, where the job leaves that to the trainer."""
    workload: Workload
    fused: bool
    capacity: int | None
    devices: int
    change: Change | None
    """What would make it fit, where it does not."""
    faster: FineTuneJobSpec | None
    """The job with larger micro-batches and the same optimizer step, where those fit."""

    @property
    def verdict(self) -> Verdict:
        """Whether it fits."""
        return verdict(self.prediction.total, self.capacity)

    def as_report(self) -> dict[str, Any]:
        """The object ``memory`` of report.json."""
        report: dict[str, Any] = {
            "verdict": self.verdict.value,
            "predictedBytes": self.prediction.total,
            "capacityBytes": self.capacity,
            "parts": {part.value: size for part, size in self.prediction.parts.items()},
            "gradientCheckpointing": self.prediction.recomputes,
            WITHOUT_RECOMPUTING: self.keeping.total if self.keeping else None,
            "longestSequence": self.workload.longest,
            "fusedKernels": self.fused,
            "devices": self.devices,
            "fitsOn": cards_that_fit(self.prediction.total),
        }
        if self.change is not None:
            report["change"] = list(self.change.words)
        if self.faster is not None:
            report["faster"] = batch_words(self.faster)
        return report


def estimate(predictor: Predictor, spec: FineTuneJobSpec, workload: Workload, capacity: int | None) -> Estimate:
    """Predict for a job whose rows ask for ``workload``, on GPUs of ``capacity`` bytes (None: unknown)."""
    fused = predictor.fuses(spec, workload)
    least, keeping = _least(predictor, spec, workload, fused=fused), None
    if spec.training.gradient_checkpointing is Switch.AUTO:
        tokens = worthwhile_tokens(spec, workload) if fused else None
        keeping = _predicted(predictor, spec, workload, recomputes=False, tokens=tokens)
    chosen = keeping if keeping and capacity is not None and keeping.total <= MARGIN * capacity else least
    change = faster = None
    if capacity is not None and verdict(chosen.total, capacity) is not Verdict.FITS:
        change = _change(predictor, spec, workload, capacity, padded=not fused)
    elif capacity is not None and not fused:
        faster = _faster(predictor, spec, workload, capacity, recomputes=chosen.recomputes)
    return Estimate(chosen, keeping, workload, fused, capacity, devices_of(spec), change, faster)


def _least(predictor: Predictor, spec: FineTuneJobSpec, workload: Workload, *, fused: bool) -> Prediction:
    recomputes = spec.training.gradient_checkpointing is not Switch.DISABLED
    return _predicted(predictor, spec, workload, recomputes=recomputes, tokens=workload.longest if fused else None)


def _predicted(
    predictor: Predictor, spec: FineTuneJobSpec, workload: Workload, *, recomputes: bool, tokens: int | None
) -> Prediction:
    """With so many tokens a pass or, where that takes less, with those of a whole step: one pass needs no float32 sums."""
    found = predictor.predict(spec, workload, recomputes=recomputes, tokens=tokens)
    step = step_tokens(spec, workload)
    if tokens is None or not tokens < step <= MOST_TOKENS or not predictor.splits(spec):
        return found
    whole = predictor.predict(spec, workload, recomputes=recomputes, tokens=step)
    return min(found, whole, key=lambda each: each.total)


def _change(
    predictor: Predictor, spec: FineTuneJobSpec, workload: Workload, capacity: int, *, padded: bool
) -> Change | None:
    def fits(changed: FineTuneJobSpec) -> bool:
        needed = _least(predictor, changed, workload, fused=predictor.fuses(changed, workload))
        return needed.total <= MARGIN * capacity

    return first_that_fits(spec, fits, padded=padded)


def _faster(
    predictor: Predictor, spec: FineTuneJobSpec, workload: Workload, capacity: int, *, recomputes: bool
) -> FineTuneJobSpec | None:
    """The largest micro-batch, above the job's own, that fits."""
    larger = [
        each for each in batches(spec) if each.training.per_device_batch_size > spec.training.per_device_batch_size
    ]
    fitting = (
        each for each in larger if predictor.predict(each, workload, recomputes=recomputes).total <= MARGIN * capacity
    )
    return next(fitting, None)
