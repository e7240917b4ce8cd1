"""Which rows are held back to evaluate on."""

from __future__ import annotations


def split_rows(count: int, size: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices (train, evaluation) of ``count`` rows, by the very function that LLaMA-Factory splits with.

    ``size`` is a share of the rows as a float, or their number as an int.

    Raises ValueError where a part would be empty.
    """
    # Imported here: it takes seconds, and most jobs hold nothing back.
    from datasets import Dataset

    parts = Dataset.from_dict({"row": range(count)}).train_test_split(test_size=size, seed=seed)
    return list(parts["train"]["row"]), list(parts["test"]["row"])
