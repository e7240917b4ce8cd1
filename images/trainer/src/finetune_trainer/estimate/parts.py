"""What GPU memory is taken by."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

GIB = 1 << 30
CONSTANTS = "quantization_constants"
"""Buffer of a quantised layer that stands for the scales of its weights."""


class Part(enum.StrEnum):
    """One user of GPU memory, by the name that reports use."""

    WEIGHTS = "weights"
    """The base model as it is stored: 16-bit, quantised, or float32 where it is trained."""
    QUANTIZATION = "quantization"
    """Scales of quantised weights, and weights that are dense for a moment."""
    ADAPTERS = "adapters"
    """Adapters, and modules trained beside them."""
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    """State of the optimizer, and what a step takes besides."""
    ACTIVATIONS = "activations"
    """What the forward pass keeps for the backward pass, and what both take on the way."""
    LOGITS = "logits"
    """Everything of the size tokens x vocabulary: logits, their float32 copy, the loss and its gradient."""
    COMMUNICATION = "communication"
    """Buffers that gradients and weights are exchanged in."""
    WORKSPACE = "workspace"
    """What kernels take for themselves."""
    RUNTIME = "runtime"
    """CUDA's context, and gaps in the allocator's blocks."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Peak memory of one device, in bytes by part."""

    parts: Mapping[Part, int]
    recomputes: bool
    """Whether activations are recomputed in the backward pass (gradient checkpointing)."""

    @property
    def total(self) -> int:
        """All of it: what a device must have."""
        return sum(self.parts.values())

    @property
    def allocated(self) -> int:
        """What PyTorch hands out at the peak: ``torch.cuda.max_memory_allocated``."""
        return self.total - self.parts.get(Part.RUNTIME, 0)
