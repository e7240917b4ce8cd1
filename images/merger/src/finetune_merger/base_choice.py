"""Which weights an adapter of QLoRA is folded into: the original ones, or the dequantised ones that it was trained on."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune_operator.api.delivery import QuantizedBase
from finetune_operator.api.outcome import Figure
from finetune_operator.api.run import RunConfig

log = logging.getLogger(__name__)

ORIGINAL, DEQUANTIZED = QuantizedBase.ORIGINAL, QuantizedBase.DEQUANTIZED


@dataclass(frozen=True, slots=True)
class BaseChoice:
    """The weights to fold into, and what was measured to choose them."""

    base: QuantizedBase
    divergences: Mapping[QuantizedBase, float] = field(default_factory=dict)
    """Kullback-Leibler divergence of either merged model from the model as trained, in nats; empty before it is measured."""

    def figures(self) -> dict[str, Figure]:
        """As the termination message and result.json bear them."""
        measured = {f"mergeKl{base}": float(f"{value:.6g}") for base, value in self.divergences.items()}
        return {"mergeQuantizedBase": str(self.base), **measured}

    def encode(self) -> str:
        """As text, for a merge that is cut short and goes on."""
        return json.dumps({"base": self.base, "divergences": self.divergences})

    @classmethod
    def decode(cls, text: str) -> BaseChoice:
        """The choice that was encoded."""
        parsed = json.loads(text)
        measured = {QuantizedBase(base): float(value) for base, value in parsed["divergences"].items()}
        return cls(QuantizedBase(parsed["base"]), measured)


def first_choice(run: RunConfig) -> BaseChoice:
    """What to fold into before anything was measured."""
    if run.spec.effective_quantization is None:
        return BaseChoice(ORIGINAL)
    wanted = run.spec.merge.quantized_base
    # Nearly always the closer one, as the adapter was trained on it: so the files are seldom written twice.
    return BaseChoice(DEQUANTIZED if wanted is QuantizedBase.AUTO else wanted)


def is_open(run: RunConfig, choice: BaseChoice) -> bool:
    """Whether the choice is still to be measured."""
    automatic = run.spec.merge.quantized_base is QuantizedBase.AUTO
    return run.spec.effective_quantization is not None and automatic and not choice.divergences


def closer(original: float, dequantized: float) -> BaseChoice:
    """The choice of the smaller divergence; the dequantised weights where they are equal."""
    chosen = ORIGINAL if original < dequantized else DEQUANTIZED
    log.info(
        "Kullback-Leibler divergence from the model as trained: %.4g merged into the original weights, %.4g into the "
        "dequantised ones; merging into the %s ones",
        original,
        dequantized,
        chosen.lower(),
    )
    return BaseChoice(chosen, {ORIGINAL: original, DEQUANTIZED: dequantized})


def read_choice(mark: Path, identity: str) -> BaseChoice | None:
    """The choice of a merge of the same things that was cut short; None where there is none."""
    try:
        found, _, choice = mark.read_text().partition("\n")
    except FileNotFoundError:
        return None
    return BaseChoice.decode(choice) if found == identity and choice else None
