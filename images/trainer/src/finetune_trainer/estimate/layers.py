"""What a model of many layers takes, told from two that have few."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from finetune_trainer.estimate.parts import Part
from finetune_trainer.estimate.tracker import MemoryTracker

FEW, MORE = 1, 2

Snapshot = Mapping[Part, float]


@dataclass(frozen=True, slots=True)
class Peaks:
    """What is alive at the worst moments, in bytes by part."""

    most: Snapshot
    """When most is alive."""
    most_moving: Snapshot
    """When most is alive of what comes and goes."""


def peaks_of(play: Callable[[int], MemoryTracker], layers: int, *, uniform: bool) -> Peaks:
    """``play`` acts a step out with a number of layers. Within each phase of it, the peak grows by the same with each layer.

    Models whose layers differ are acted out whole.
    """
    if not uniform or layers <= MORE:
        whole = play(layers)
        return _peaks(whole, whole, 0)
    return _peaks(play(FEW), play(MORE), layers - MORE)


def _peaks(few: MemoryTracker, more: MemoryTracker, further: float) -> Peaks:
    whole = [_further(few.peaks[phase], more.peaks[phase], further) for phase in more.peaks]
    moving = [_further(few.moving_peaks[phase], more.moving_peaks[phase], further) for phase in more.moving_peaks]
    return Peaks(
        max(whole, key=lambda parts: sum(parts.values())),
        max(moving, key=lambda parts: parts.get(Part.ACTIVATIONS, 0) + parts.get(Part.LOGITS, 0)),
    )


def _further(few: Snapshot, more: Snapshot, times: float) -> Snapshot:
    return {part: size + times * (size - few.get(part, 0)) for part, size in more.items()}
