"""How much memory a GPU has, and whether a prediction fits it."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping

from finetune_operator.api.run import RunConfig
from finetune_trainer.estimate.parts import GIB

MIB = 1 << 20
MARGIN = 0.9
"""Share of a GPU's memory up to which a prediction is sure to fit."""
REFUSED = 1.3
"""Share from which a prediction is sure not to."""
CARDS: Mapping[str, int] = {
    "T4 (16 GB)": 15360 * MIB,
    "L4 or A10 (24 GB)": 23028 * MIB,
    "RTX 4090 (24 GB)": 24564 * MIB,
    "A100 (40 GB)": 40960 * MIB,
    "L40S (48 GB)": 46068 * MIB,
    "A100 or H100 (80 GB)": 81559 * MIB,
    "H200 (141 GB)": 143771 * MIB,
    "B200 (180 GB)": 183359 * MIB,
}
"""Memory as nvidia-smi tells it; of those that share a line, the smaller."""
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15} | {
    f"{letter}i": 1 << (10 * power) for power, letter in enumerate("KMGTP", start=1)
}


class Verdict(enum.StrEnum):
    """Whether a training fits."""

    FITS = "Fits"
    TIGHT = "Tight"
    """It may run out of memory."""
    TOO_LARGE = "TooLarge"
    """It will."""
    UNKNOWN = "Unknown"
    """Nobody said how much memory the GPU has."""


def verdict(needed: int, capacity: int | None) -> Verdict:
    """Whether ``needed`` bytes fit."""
    if capacity is None:
        return Verdict.UNKNOWN
    if needed <= MARGIN * capacity:
        return Verdict.FITS
    return Verdict.TIGHT if needed <= REFUSED * capacity else Verdict.TOO_LARGE


def known_capacity(run: RunConfig) -> int | None:
    """Bytes of one GPU: as the job or the platform says, else of the GPU of this machine, else None."""
    if run.gpu_memory is not None:
        return quantity_bytes(run.gpu_memory)
    import torch

    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


def quantity_bytes(quantity: str) -> int:
    """Bytes of a Kubernetes quantity such as 80Gi."""
    number, unit = re.fullmatch(r"([0-9.]+)(.*)", quantity).groups()  # type: ignore[union-attr]  # the schema has the pattern
    return int(float(number) / 1000) if unit == "m" else int(float(number) * _UNITS[unit])


def cards_that_fit(needed: int) -> list[str]:
    """Common cards that the training is sure to fit."""
    return [card for card, size in CARDS.items() if verdict(needed, size) is Verdict.FITS]


def gib(size: float) -> str:
    """A size for people."""
    return f"{size / GIB:.1f} GiB"
