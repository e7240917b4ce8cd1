"""What train.py measures, by name, in order of importance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Ours:
    """A FineTuneJob: fields of its spec, and how long it goes on."""

    training: dict[str, Any]
    method: str = "LoRA"
    gpus: int = 1
    packing: str = "None"
    memory_gib: float | None = None
    """What is left free of the GPU's memory; None for all of it."""
    warm_up: int = 3
    steps: int = 9
    """Measured ones."""

    @property
    def ends_early(self) -> bool:
        """Whether it is killed after the last step: the checkpoint at the end of Full would be larger than the disk."""
        return self.method == "Full"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another trainer: its program, the option that names the folder with its packages, and its own settings."""

    program: str
    option: str
    settings: dict[str, Any] = field(default_factory=dict)


Variant = Ours | Peer

_TUTORIAL = {"perDeviceBatchSize": 1, "gradientAccumulationSteps": 8}
_LARGE = {"perDeviceBatchSize": 8, "gradientAccumulationSteps": 8}
# 15,000 tokens a step and device, of which none has to be padding: as many as fit one pass of a 7B model that is trained whole.
_PACKED_ROWS = {"perDeviceBatchSize": 15, "gradientAccumulationSteps": 1}
_SMALL_STEPS: dict[str, Any] = {"warm_up": 6, "steps": 51}


def _llama_factory(**settings: Any) -> Peer:
    return Peer("llama_factory.py", "llama_factory", settings)


def _trl(**settings: Any) -> Peer:
    return Peer("trl_sft.py", "trl", settings)


def _rows(batch: int, accumulation: int) -> dict[str, Any]:
    return {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}


# The best settings were found by trying LLaMA-Factory's options on one H200: docs/performance.md.
_FAST = {"enable_liger_kernel": True, "disable_gradient_checkpointing": True, "flash_attn": "sdpa"}
_PACKED = {**_FAST, "neat_packing": True}
_FOUR_BITS = {"quantization_bit": 4, "quantization_method": "bnb"}

CHAT: dict[str, Variant] = {
    "lora, tutorial's settings": Ours(_TUTORIAL, **_SMALL_STEPS),
    "llama-factory lora, best": _llama_factory(**_PACKED, **_rows(8, 1)),
    # A small model needs larger batches than a large one to fill the card.
    "llama-factory lora, large batch": _llama_factory(**_PACKED, **_rows(32, 1)),
    "lora, batch of 64 rows": Ours(_LARGE),
    "lora fp8 base": Ours({**_LARGE, "precision": "FP8Base"}),
    "qlora, batch of 64 rows": Ours(_LARGE, "QLoRA"),
    "llama-factory qlora, best": _llama_factory(**_PACKED, **_FOUR_BITS, **_rows(4, 2)),
    "qlora within 24 GiB": Ours(_LARGE, "QLoRA", memory_gib=24),
    "full, one card": Ours(_PACKED_ROWS, "Full", packing="Segmented"),
    "trl lora, best": _trl(packing=True, use_liger_kernel=True, gradient_checkpointing=False, **_rows(4, 2)),
    "llama-factory lora, tutorial's settings": _llama_factory(),
    "full, two cards": Ours(_PACKED_ROWS, "Full", packing="Segmented", gpus=2),
    "full, two cards, large batch": Ours(
        {**_PACKED_ROWS, "perDeviceBatchSize": 21}, "Full", packing="Segmented", gpus=2
    ),
    "full, batch of 64 rows": Ours(_LARGE, "Full"),
    "lora, two cards": Ours(_LARGE, gpus=2),
    "qlora, tutorial's settings": Ours(_TUTORIAL, "QLoRA", **_SMALL_STEPS),
    # What rounding does to the loss: both see the same rows in the same order.
    "lora, 200 steps": Ours(_TUTORIAL, warm_up=20, steps=180),
    "lora fp8 base, 200 steps": Ours({**_TUTORIAL, "precision": "FP8Base"}, warm_up=20, steps=180),
    "lora, tutorial's settings, plain": Ours({**_TUTORIAL, "fusedKernels": "Disabled"}, steps=12),
}
"""For rows of a few hundred tokens."""


def _long(accumulation: int) -> dict[str, Variant]:
    """For rows of thousands of tokens, so many of them in a step."""
    rows = _rows(1, accumulation)
    ours: dict[str, Any] = {"perDeviceBatchSize": 1, "gradientAccumulationSteps": accumulation}
    # A step takes a row: rows of about the cutoff's length leave nothing to pack, and without a mask attention is faster.
    return {
        "lora, tutorial's settings": Ours(ours, steps=6),
        "llama-factory lora, best": _llama_factory(**_FAST, **rows),
        "llama-factory lora, packed": _llama_factory(**_PACKED, **rows),
        "llama-factory lora, best, gradient checkpointing": _llama_factory(
            **{**_FAST, "disable_gradient_checkpointing": False}, **rows
        ),
        "qlora, tutorial's settings": Ours(ours, "QLoRA", steps=6),
        "llama-factory qlora, best": _llama_factory(**_FAST, **_FOUR_BITS, **rows),
    }


def variants(rows: str) -> dict[str, Variant]:
    """Those for a kind of rows."""
    # Eight rows of 24,000 tokens would take a step a quarter of a minute.
    return {"chat": CHAT, "long8k": _long(8), "long32k": _long(2)}[rows]
