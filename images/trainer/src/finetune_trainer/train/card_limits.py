"""What GPUs can compute at most, by their makers' datasheets."""

from __future__ import annotations

import re

_LIMITS: tuple[tuple[str, float], ...] = (
    (r"NVIDIA B200", 2250),
    (r"NVIDIA (H200|GH200 .*|H100 80GB HBM3)", 989),
    (r"NVIDIA (H200 NVL|H100 NVL)", 835),
    (r"NVIDIA H100 PCIe", 756),
    (r"(NVIDIA )?A100[- ].*", 312),
    (r"(NVIDIA )?A40", 149.7),
    (r"(NVIDIA )?A30", 165),
    (r"(NVIDIA )?A10", 125),
    (r"NVIDIA L40S", 362),
    (r"NVIDIA L40", 181),
    (r"NVIDIA L4", 121),
    (r"NVIDIA GeForce RTX 4090", 165.2),
    (r"NVIDIA GeForce RTX 3090", 71),
    (r"(Tesla )?V100-SXM2-.*", 125),
    (r"(Tesla )?V100-PCIE-.*", 112),
    (r"(Tesla )?T4", 65),
)


def dense_limit(card: str) -> float | None:
    """TFLOP/s of 16-bit matrix products without sparsity that a card, by the name that its driver gives it, is sold with.

    None for cards that are not in the list, and for slices of a card (MIG). bfloat16; float16 on V100 and T4, which have
    no bfloat16. Sums are in float32. NVIDIA's datasheets print twice as much where they say "with sparsity":
    "H200 Tensor Core GPU" and "H100 Tensor Core GPU" (SXM 1,979 / 2, NVL 1,671 / 2, PCIe 1,513 / 2), "GH200 Grace Hopper
    Superchip" (1,979 / 2), "HGX B200" (36,000 / 2 / 8), "A100" (312), "A40" (149.7), "A30" (165), "A10" (125), "L40S"
    (362), "L40" (181), "L4" (242 / 2), "Tesla V100" (125, PCIe 112), "Tesla T4" (65). GeForce: appendices of the white
    papers "NVIDIA Ada GPU Architecture" (165.2) and "NVIDIA Ampere GA102 GPU Architecture" (71).
    """
    if "MIG" in card.split():
        return None
    return next((limit for pattern, limit in _LIMITS if re.fullmatch(pattern, card)), None)
