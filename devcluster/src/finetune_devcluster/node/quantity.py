"""Kubernetes quantities.

Format: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

_SUFFIXES = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1)}
_SUFFIXES |= {suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)}
_SUFFIXES |= {f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)}
_QUANTITY = re.compile(r"^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]*)$")


def parse(text: str) -> Decimal:
    """The number of base units.

    Raises ValueError when the text is no quantity.
    """
    match = _QUANTITY.match(str(text))
    if not match or match[2] not in _SUFFIXES:
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 8Gi")
    return Decimal(match[1]) * _SUFFIXES[match[2]]


def in_units(text: str, divisor: str) -> int:
    """How many whole divisors the quantity is, rounded up as the kubelet does it."""
    return math.ceil(parse(text) / (parse(divisor) or Decimal(1)))
