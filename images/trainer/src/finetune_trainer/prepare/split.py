"""Which rows are held back to evaluate on."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def split_rows(count: int, size: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (train, evaluation) of ``count`` rows, those of ``datasets.Dataset.train_test_split``, which LLaMA-Factory calls.

    ``size`` is a share of the rows as a float, or their number as an int. That function itself takes 2.5 GiB for
    3 million rows, and seconds to import; a test holds this one to it.

    Raises ValueError where a part would be empty.
    """
    held_back = size if isinstance(size, int) else math.ceil(size * count)
    if not 0 < held_back < count:
        raise ValueError(f"{held_back} would be held back and {count - held_back} trained on")
    order = np.random.default_rng(seed).permutation(count)
    return order[held_back:], order[:held_back]
