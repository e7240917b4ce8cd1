"""report.json: what prepare found in the datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_operator.api.outcome import Figure
from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare.cautions import warnings_of
from finetune_trainer.prepare.compatibility import counted
from finetune_trainer.prepare.parts import Positions
from finetune_trainer.prepare.tally import MOST_DROPPED, Tally
from finetune_trainer.store import Table


def build_report(
    run: RunConfig, tallies: Sequence[Tally], table: Table, train: Positions, evaluation: Positions, sequences: int
) -> dict[str, Any]:
    """The report: totals of what is trained on, dropped rows by place, lengths, and the share of each dataset."""
    lengths = table["length"][train]
    dropped = [place for tally in tallies for place in tally.dropped.first]
    return {
        "rows": int((lengths > 0).sum()),
        "tokens": int(lengths.sum(dtype=np.int64)),
        "trainedTokens": int(table["trained"][train].sum(dtype=np.int64)),
        "sequences": sequences,
        "evaluationRows": int((table["length"][evaluation] > 0).sum()),
        "dropped": sum(tally.dropped.count for tally in tallies),
        "truncated": sum(tally.truncated for tally in tallies),
        **_compatibility(run, tallies),
        "warnings": warnings_of(run, tallies, table, train, evaluation, sequences),
        "lengths": _histogram(lengths[lengths > 0]),
        "datasets": [_dataset(tally) for tally in tallies],
        "droppedRows": dropped[:MOST_DROPPED],
    }


def _compatibility(run: RunConfig, tallies: Sequence[Tally]) -> dict[str, Any]:
    if not run.spec.tokenization.is_llama_factory:
        return {}
    return {"compatibility": counted(tally.compatibility for tally in tallies)}


def figures(report: dict[str, Any]) -> dict[str, Figure]:
    """The figures that the job's status shows."""
    return {
        name: report[name] for name in ("rows", "dropped", "tokens", "trainedTokens", "evaluationRows", "truncated")
    }


def _dataset(tally: Tally) -> dict[str, Any]:
    return {
        "source": tally.source,
        "rows": tally.rows,
        "tokens": tally.tokens,
        "trainedTokens": tally.trained,
        "dropped": tally.dropped.count,
        "truncated": tally.truncated,
        "truncatedShare": round(tally.truncated / tally.rows, 4) if tally.rows else 0.0,
    }


def _histogram(lengths: NDArray[np.int32]) -> list[dict[str, int]]:
    """Rows by length; each bin reaches up to a power of two, inclusive."""
    limits = 2 ** np.arange(4, 31)
    counts = np.bincount(np.searchsorted(limits, lengths), minlength=len(limits))
    return [{"upTo": int(limit), "rows": int(rows)} for limit, rows in zip(limits, counts, strict=True) if rows]
