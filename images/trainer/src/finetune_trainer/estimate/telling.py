"""The estimate in words."""

from __future__ import annotations

from collections.abc import Iterator

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.estimate.advice import batch_words
from finetune_trainer.estimate.capacity import Verdict, cards_that_fit, gib
from finetune_trainer.estimate.estimate import Estimate
from finetune_trainer.estimate.parts import Prediction

_NOTHING = (
    "no change of memory settings makes it fit; use a smaller model, or shorter sequences (tokenization.cutoffLen)"
)


def lines(job: str, spec: FineTuneJobSpec, estimate: Estimate) -> Iterator[str]:
    """For a terminal: a headline, a line a part, and what follows from it."""
    yield f"{job}: {_headline(spec, estimate)}"
    for part, size in estimate.prediction.parts.items():
        yield f"  {part.value:<14}{gib(size):>11}"
    yield f"  {'total':<14}{gib(estimate.prediction.total):>11}{_of_capacity(estimate)}"
    yield from (f"  {line}" for line in _consequences(estimate))


def summary(estimate: Estimate) -> str:
    """One line."""
    return f"{gib(estimate.prediction.total)} of GPU memory predicted{_of_capacity(estimate)}"


def refusal(spec: FineTuneJobSpec, estimate: Estimate) -> StageFailure:
    """Why a job is not let onto a GPU, and what would be."""
    assert estimate.capacity is not None, "nothing is refused on a GPU of unknown size"  # noqa: S101
    do = f"set {estimate.change}" if estimate.change else _NOTHING
    return StageFailure(
        ExitCode.INVALID_SPEC,
        f"spec.resources.gpuMemory: {_headline(spec, estimate)} needs about {gib(estimate.prediction.total)} of each GPU "
        f"({in_parts(estimate.prediction)}), found {gib(estimate.capacity)}; {do}",
        predictedBytes=estimate.prediction.total,
    )


def in_parts(prediction: Prediction) -> str:
    """The parts, largest first."""
    parts = sorted(prediction.parts.items(), key=lambda item: -item[1])
    return ", ".join(f"{part.value} {size / 2**30:.1f}" for part, size in parts if size >= 2**30 / 20)


def _headline(spec: FineTuneJobSpec, estimate: Estimate) -> str:
    training, longest = spec.training, estimate.workload.longest
    rows = "sequences" if estimate.fused else f"{training.per_device_batch_size} x"
    kernels = "fused kernels, " if estimate.fused else ""
    recomputes = "on" if estimate.prediction.recomputes else "off"
    where = f"{estimate.devices} GPUs, " if estimate.devices > 1 else ""
    zero = f"ZeRO-{spec.deepspeed.stage}, " if spec.deepspeed else ""
    tokens = f"{rows} of up to {longest:,} tokens" if estimate.fused else f"{rows} {longest:,} tokens"
    return (
        f"{spec.method.value}, {training.precision.value}, {where}{zero}{kernels}{tokens}, "
        f"gradient checkpointing {recomputes}"
    )


def _of_capacity(estimate: Estimate) -> str:
    if estimate.capacity is None:
        return ""
    words = {Verdict.FITS: "fits", Verdict.TIGHT: "may run out of memory", Verdict.TOO_LARGE: "does not fit"}
    return f" of {gib(estimate.capacity)}: {words[estimate.verdict]}"


def _consequences(estimate: Estimate) -> Iterator[str]:
    if estimate.capacity is None:
        cards = cards_that_fit(estimate.prediction.total)
        yield f"fits {', '.join(cards)}" if cards else "fits no common card"
    if estimate.keeping is not None and estimate.prediction.recomputes:
        yield f"{gib(estimate.keeping.total)} without gradient checkpointing; the trainer decides by the GPU that it gets"
    if estimate.change is not None:
        yield f"to make it fit, set {estimate.change}"
    elif estimate.capacity is not None and estimate.verdict is not Verdict.FITS:
        yield _NOTHING
    if estimate.faster is not None:
        yield f"faster, with the same result: {batch_words(estimate.faster)}"
